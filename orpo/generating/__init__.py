"""Prompts, preference pairs and the distilabel pipeline that makes the one into the other."""

"""A trained adapter in the forms that other programs take, each shown to answer as the tuned model did."""

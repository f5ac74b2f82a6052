"""What watches a training run: TensorBoard, guards, sampled replies, the reward."""

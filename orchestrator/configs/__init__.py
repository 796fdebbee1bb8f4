"""What is rendered for DeepSpeed and Accelerate: configurations as values, checked before anything starts."""

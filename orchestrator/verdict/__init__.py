"""What became of a run: the evidence, the judgement, and the document that tells it."""

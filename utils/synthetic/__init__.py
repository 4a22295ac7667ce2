"""The embedded data set: procedural aerial scenes with exact road masks and centre-line graphs."""

from utils.synthetic.write import write_sample_dataset

__all__ = ["write_sample_dataset"]

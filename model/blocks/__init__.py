"""Parts that several baselines share, named by what they are."""

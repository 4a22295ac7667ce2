"""Models compared under one protocol: what is to be done, the doing, and what comes of it."""

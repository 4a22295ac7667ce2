"""How heavy models are: parameters, FLOPs, time and memory, whole and by part."""

"""Road graphs: out of masks and vector files, into files, and weighed against each other.

Nothing is imported here, so that each script pays only for what it uses; `registry` lists the
metrics, `graph` has the graph, `from_mask` and `from_vector` make one.
"""

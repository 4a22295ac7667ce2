"""The public road datasets, as they are distributed, into ROOT/DATASET/{train,val,test}."""

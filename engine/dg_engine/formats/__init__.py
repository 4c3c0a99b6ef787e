"""How checkpoints store weights: read by what their files say, and checked whole before a byte of data is read.

headers     which tensors lie in which file, with types and shapes
places      which part of which parameter a stored name means, fused or per expert
encodings   bf16, FP8, NVFP4 in both conventions, INT4: recognised by types and shapes, turned into numbers
declared    what config.json says of the quantisation, which the tensors must not contradict
plan        all of it together: every parameter of the model, and where its numbers come from
sizes       parts, parameters and memory of a plan
convert     a checkpoint written anew with fewer bits
"""

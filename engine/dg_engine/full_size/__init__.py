"""`dg-engine bench --full-size`: how fast the released model's shape runs here, from random weights alone.

shapes      what is measured: the released model's sizes, or tiny ones, at which the same code runs anywhere
weights     random weights in any format, made where they are used
measure     prefill, steps, first drafts, whole blocks, memory
floors      the least time that a step's bytes and arithmetic need at the rates measured in the same run
theirs      the same from transformers' own `generate`, where it is installed
results     what each stage finds, and the report that they make
record      runs the stages; each is on the disk before the next begins, and what is there is not measured again
report      Markdown and a roofline plot
command     all of it, in order
"""

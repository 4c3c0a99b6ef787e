"""`dg-engine bench --full-size`: how fast the released model's shape runs here, from random weights alone.

shapes      what is measured: the released model's sizes, or tiny ones, at which the same code runs anywhere
weights     random weights in any format, made where they are used
measure     prefill, steps, first drafts, whole blocks, memory
floors      the least time that a step's bytes and arithmetic need at the rates measured in the same run
theirs      the same from transformers' own `generate`, where it is installed
report      a Markdown table, JSON and a roofline plot
"""

"""What the installed DeepSpeed and Accelerate make of our files: a program of its own.

    python -m orchestrator.configs.installed FOLDER WORLD

It runs with the Python of the training, 3.8 or newer, which has DeepSpeed or Accelerate and need not have us:
this package imports nothing of ours and can be copied to where that Python finds it. FOLDER holds
`ds_config.json`, `accelerate.yaml` or both; WORLD is the number of ranks, 0 for as many as the batch sizes
fit. Stdout gets one JSON object:

    {"deepspeed": "0.19.8" or null, "accelerate": "1.15.0" or null, "problems": [...], "dropped": [...],
     "meant": {"key path": ["a key that is read there", ...]}}

`problems` is what their classes refuse. `dropped` is what nobody reads: DeepSpeed gets a dictionary that
notes which keys it asks for.
"""

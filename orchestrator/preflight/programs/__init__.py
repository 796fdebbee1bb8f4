"""Programs that `orchestrate check` brings to the hosts in one zip file (preflight.program_zip).

Each reads a request, a JSON object, from its argument and prints answers as lines of JSON behind
`ORCH-CHECK `. They need Python 3.8 and nothing else; torch and DeepSpeed only where they say so.
"""

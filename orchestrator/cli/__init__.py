"""The `orchestrate` command: one module per group of subcommands, imported when it is used."""

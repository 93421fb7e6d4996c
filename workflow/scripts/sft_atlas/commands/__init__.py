"""The command `sft-atlas`, a module for each of its larger subcommands."""

"""
The command `lipservice`: one module for each subcommand, registered in `lipservice.cli.main`.

A subcommand's module has two functions: `add_arguments(parser)` and `run(arguments) -> int`. It
is imported only when its subcommand is asked for, so that `lipservice --help` is quick.
"""

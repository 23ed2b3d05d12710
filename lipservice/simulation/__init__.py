"""
What a policy would do to logs that were already written.

    reading      files, archives and pipes -> lines -> log records
    formats      one line -> time, severity, message
    counting     records -> patterns, in bounded memory
    report       patterns and a policy -> one report
    text, html, jsonout    the report, for a terminal, a browser, a machine

Nothing here is imported by a running application: `lipservice.cli` is the only caller.
"""

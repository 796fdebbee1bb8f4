"""A job file by question and answer: `orchestrate init`.

`machine` looks at what is here; `questions` is a table of what is asked, and `guess` what is proposed; `flow`
says which question comes next and what the answers make, as functions of values; `document` makes the file's
text and says what is wrong with it; `dialogue`, `screen` and `selector` are the terminal.
"""

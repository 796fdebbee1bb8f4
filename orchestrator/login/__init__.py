"""Submit from another machine: everything is done on a login host, over one ssh connection that is kept.

`holder` keeps the connection in a process of its own, `client` gives it commands, `auth` logs in; `install`
puts this version of the program there, `push` and `fetch` move files, `far` is what runs there.
"""

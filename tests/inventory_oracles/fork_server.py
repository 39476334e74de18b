"""Runs a command-line program written in Python many times, and loads it once: each command runs in a fork.

One command a line of standard input, as a JSON list of arguments; one line of standard output for each, as JSON:
[exit status, standard output, standard error].
"""
import importlib, json, os, sys, tempfile

# The program's module, the name of what starts it in there (a dot leads into a class), and what it is called.
module, start, name = sys.argv[1:]
module = importlib.import_module(module)


def run(arguments, out, err):
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.argv = [name, *arguments]
    entry = module
    for part in start.split("."):
        entry = getattr(entry, part)
    try:
        entry()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


for line in sys.stdin:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            try:
                run(json.loads(line), out, err)
            except BaseException as error:
                err.write(repr(error).encode())
                err.flush()
            os._exit(70)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        answer = [os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode()]
    print(json.dumps(answer), flush=True)

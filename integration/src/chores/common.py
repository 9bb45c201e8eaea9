"""What the chores have in common: `run DIRECTORY` works until SIGTERM and says `ok TOKEN` for what is done;
`check DIRECTORY` reads all such tokens and fails if something of them is missing."""
import os, signal, sys

going = True


def stop(*_):
    global going
    going = False


def done(token):
    print("ok", token, flush=True)


def main(run, check):
    mode, directory = sys.argv[1:]
    if mode == "check":
        check(directory, sys.stdin.read().split())
        return
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    os.makedirs(directory, exist_ok=True)
    step = run(directory)
    while going:
        next(step)

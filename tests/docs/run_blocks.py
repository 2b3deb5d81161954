#!/usr/bin/env python3
"""Compiles and runs every ```c and ```cpp block of Markdown files on each device; a ```text block right behind one holds
what it must print. Words after the language: cpu-only, fails (exit status 1), NAME=value (environment).

    run_blocks.py [--update] [--devices cpu,opencl:0] BUILD INCLUDE FILE...     --update writes the output that it saw
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"^```(c|cpp)((?: [^\n]*)?)\n(.*?)^```\n(\n?```text\n(.*?)^```\n)?", re.S | re.M)
COMPILERS = {"c": ["cc", "-std=gnu17"], "cpp": ["c++", "-std=c++17"]}
WRAP = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n{includes}#include <tern/tern.h>\n" \
       "int main(void) {{\n  TERN_SCOPE;\n{body}\n  return tern_finish();\n}}\n"


def whole_program(code):
    if "main(" in code:
        return code
    lines = code.split("\n")
    includes = "".join(line + "\n" for line in lines if line.startswith("#include"))
    return WRAP.format(includes=includes, body="\n".join(l for l in lines if not l.startswith("#include")))


class Runner:
    def __init__(self, args, folder):
        self.args, self.folder, self.blocks, self.bad = args, folder, 0, 0

    def complain(self, where, text):
        print(f"{where}: {text}")
        self.bad += 1

    def run(self, program, device, info):
        env = {**os.environ, "TERN_DEVICE": device, "TERN_FALLBACK": "error"}
        env.update(dict(word.split("=", 1) for word in info if "=" in word))
        return subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=self.folder)

    def block(self, path, text, match):
        self.blocks += 1
        language, info, code, has, expected = match[1], match[2].split(), match[3], match[4], match[5]
        where = f"{path}:{text[:match.start()].count(chr(10)) + 1}"
        source, program = f"{self.folder}/block{self.blocks}.{language}", f"{self.folder}/block{self.blocks}"
        with open(source, "w") as file:
            file.write(whole_program(code))
        lib = self.args.build + "/lib"
        made = subprocess.run(COMPILERS[language] + ["-Wall", "-Wextra", "-Werror", "-O1", "-I" + self.args.include, source, "-o", program,
                              "-L" + lib, "-ltern", "-Wl,-rpath," + lib, "-pthread", "-lm"], capture_output=True, text=True)
        if made.returncode:
            self.complain(where, "does not compile\n" + made.stderr)
            return match[0]
        outputs = []
        for device in self.args.devices.split(","):
            if "cpu-only" in info and device != "cpu":
                continue
            result = self.run(program, device, info)
            if result.returncode != (1 if "fails" in info else 0):
                self.complain(where, f"on {device}: exit status {result.returncode}\n{result.stdout}")
            outputs.append(result.stdout)
        if any(output != outputs[0] for output in outputs):
            self.complain(where, "the devices differ:\n" + "--\n".join(outputs))
        if has is None:
            if outputs[0]:
                self.complain(where, "prints, but no text block says what:\n" + outputs[0])
            return match[0]
        if outputs[0] == expected:
            return match[0]
        if not self.args.update:
            self.complain(where, f"prints something else\n--- written\n{expected}--- printed\n{outputs[0]}")
        return match[0].replace(has, ("\n" if has.startswith("\n") else "") + "```text\n" + outputs[0] + "```\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--devices", default="cpu,opencl:0")
    for name in ("build", "include"):
        parser.add_argument(name)
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    args.build, args.include = os.path.abspath(args.build), os.path.abspath(args.include)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(args, folder)
        for path in args.files:
            text = open(path).read()
            new = BLOCK.sub(lambda match: runner.block(path, text, match), text)
            if args.update and new != text:
                open(path, "w").write(new)
    print(f"{runner.blocks} blocks, {runner.bad} bad")
    return runner.bad != 0 or runner.blocks == 0


sys.exit(main())

import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { test } from "node:test";
import { locate, PROGRAM } from "../src/locate";

function directory(...programs: string[]): string {
    const made = mkdtempSync(join(tmpdir(), "dg-locate-"));
    for (const program of programs) {
        makeProgram(join(made, program));
    }
    return made;
}

function makeProgram(path: string): void {
    writeFileSync(path, "#!/bin/sh\n");
    chmodSync(path, 0o755);
}

function environment(): string {
    const made = directory();
    mkdirSync(join(made, "bin"));
    makeProgram(join(made, "bin", PROGRAM));
    return made;
}

const nowhere = "/nowhere";

test("the setting comes first, then the PATH, then the private environment", () => {
    const [chosen, onPath, made] = [join(directory("mine"), "mine"), directory(PROGRAM), environment()];
    const all = { path: chosen, searchPath: onPath, environment: made };
    assert.deepEqual(locate(all), { program: chosen });
    assert.deepEqual(locate({ ...all, path: "" }), { program: join(onPath, PROGRAM) });
    assert.deepEqual(locate({ ...all, path: "", searchPath: nowhere }), { program: join(made, "bin", PROGRAM) });
    assert.equal(locate({ path: "", searchPath: nowhere, environment: nowhere }), "missing");
});

test("a setting that is no string is wrong, whatever else there is", () => {
    const found = locate({ path: 5, searchPath: directory(PROGRAM), environment: nowhere });
    assert.deepEqual(found, { wrong: "The setting dg.server.path must be a string." });
});

test("a chosen program that is not there is wrong, whatever else there is", () => {
    const found = locate({ path: "/nowhere/dg-lsp", searchPath: directory(PROGRAM), environment: nowhere });
    assert.deepEqual(found, { wrong: "The setting dg.server.path names no program: /nowhere/dg-lsp" });
});

test("a chosen program without a directory is searched for on the PATH", () => {
    const path = directory("my-server");
    assert.deepEqual(locate({ path: "my-server", searchPath: `${nowhere}${delimiter}${path}`, environment: nowhere }), {
        program: join(path, "my-server"),
    });
});

test("a tilde is the home directory", (context) => {
    const home = directory("mine");
    const before = process.env["HOME"];
    context.after(() => {
        process.env["HOME"] = before;
    });
    process.env["HOME"] = home;
    assert.deepEqual(locate({ path: "~/mine", searchPath: nowhere, environment: nowhere }), {
        program: join(home, "mine"),
    });
});

test("directories and files that cannot be run are no programs", () => {
    const path = mkdtempSync(join(tmpdir(), "dg-locate-"));
    mkdirSync(join(path, PROGRAM));
    assert.equal(locate({ path: "", searchPath: path, environment: nowhere }), "missing");
    const other = mkdtempSync(join(tmpdir(), "dg-locate-"));
    writeFileSync(join(other, PROGRAM), "text");
    assert.equal(locate({ path: "", searchPath: other, environment: nowhere }), "missing");
});

test("a relative directory on the PATH is passed over: it would be one of the workspace", () => {
    assert.equal(locate({ path: "", searchPath: ".", environment: nowhere }), "missing");
});

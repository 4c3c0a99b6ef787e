import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { findPython, install, InstallError, type Installation } from "../src/install";

/** A directory with a Python that says its version and, as `-m venv`, makes an environment with the given `python`. */
function pythons(version: string, inside = ""): string {
    const path = mkdtempSync(join(tmpdir(), "dg-python-"));
    program(
        join(path, "python3"),
        `case "$*" in
            *version_info*) echo ${version} ;;
            *venv*) [ "$4" != --clear ] || rm -rf "$3"
                mkdir -p "$3/bin"
                cat > "$3/bin/python" << 'END'
#!/bin/sh
${inside}
END
                chmod +x "$3/bin/python" ;;
        esac`,
    );
    return path;
}

function program(path: string, script: string): void {
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
}

function installation(searchPath: string, changes: Partial<Installation> = {}): Installation & { lines: string[] } {
    const lines: string[] = [];
    return {
        environment: join(mkdtempSync(join(tmpdir(), "dg-install-")), "server"),
        package: "dg-lsp[engine]",
        searchPath,
        report: (line) => lines.push(line),
        signal: new AbortController().signal,
        lines,
        ...changes,
    };
}

/** What pip leaves when all is well: a program beside the Python that ran it. */
const GOOD_PIP = `echo "Collecting $*"; printf '#!/bin/sh\\necho 1\\n' > "$(dirname "$0")/dg-lsp"; chmod +x "$(dirname "$0")/dg-lsp"`;

test("a Python that is too old is passed over for another name", async () => {
    const path = pythons("3 9");
    program(join(path, "python3.12"), "echo 3 12");
    assert.equal(await findPython(path), join(path, "python3.12"));
});

test("nothing is installed, nor anything asked of an index, before somebody says what", async () => {
    const asked = installation(pythons("3 12", GOOD_PIP), { package: "" });
    await assert.rejects(install(asked), (error: InstallError) => error.remedy.includes("checkout"));
    assert.deepEqual([existsSync(asked.environment), asked.lines], [false, []]);
});

test("without a Python that will do, the reason says which is needed", async () => {
    await assert.rejects(findPython(pythons("3 9")), /3\.11 or newer/);
    await assert.rejects(findPython("/nowhere"), InstallError);
});

test("the package that was asked for is installed, and pip's lines are told", async () => {
    const asked = installation(pythons("3 12", GOOD_PIP), { package: "/checkout[engine]" });
    assert.equal(await install(asked), join(asked.environment, "bin", "dg-lsp"));
    assert.ok(asked.lines.some((line) => line.startsWith("Collecting") && line.endsWith("/checkout[engine]")));
});

test("a failure of pip names its error and the setting that helps, and leaves nothing behind", async () => {
    const pip = 'echo "ERROR: No matching distribution found for dg-lsp" >&2; exit 1';
    const asked = installation(pythons("3 12", pip));
    await assert.rejects(install(asked), (error: InstallError) => {
        assert.match(error.message, /No matching distribution/);
        assert.match(error.remedy, /dg\.server\.package/);
        return true;
    });
    assert.equal(existsSync(asked.environment), false);
});

test("a failed update leaves the server that was there", async () => {
    const asked = installation(pythons("3 12", "exit 1"));
    mkdirSync(join(asked.environment, "bin"), { recursive: true });
    program(join(asked.environment, "bin", "dg-lsp"), "echo 0");
    await assert.rejects(install(asked), InstallError);
    assert.ok(existsSync(join(asked.environment, "bin", "dg-lsp")));
});

/** What is left where the Python has gone with which an environment was made. */
function leaveBroken(environment: string): void {
    const directory = join(environment, "bin");
    mkdirSync(directory, { recursive: true });
    symlinkSync("/nowhere/python", join(directory, "python"));
    writeFileSync(join(directory, "dg-lsp"), `#!${directory}/python\n`, { mode: 0o755 });
}

test("an environment whose Python is gone is made anew", async () => {
    const asked = installation(pythons("3 12", GOOD_PIP));
    leaveBroken(asked.environment);
    assert.equal(await install(asked), join(asked.environment, "bin", "dg-lsp"));
});

test("what is left of one does not outlive a failure", async () => {
    const asked = installation(pythons("3 12", "exit 1"));
    leaveBroken(asked.environment);
    await assert.rejects(install(asked), InstallError);
    assert.equal(existsSync(asked.environment), false);
});

test("a program that was installed but does not run is no success", async () => {
    const pip = GOOD_PIP.replace("echo 1", "exit 3");
    await assert.rejects(install(installation(pythons("3 12", pip))), /does not run/);
});

test("cancelling ends pip and what it has started, and leaves nothing behind", { timeout: 10_000 }, async () => {
    const abort = new AbortController();
    const asked = installation(pythons("3 12", "echo started; sleep 60 & wait"), {
        signal: abort.signal,
        report: (line) => {
            if (line === "started") {
                abort.abort();
            }
        },
    });
    await assert.rejects(install(asked), /cancelled/);
    assert.equal(existsSync(asked.environment), false);
});

/** A virtual environment of the extension's own with the server in it. Nothing here talks to VS Code. */
import { execFile, spawn } from "node:child_process";
import { rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { inEnvironment, onPath, PROGRAM } from "./locate";

const OLDEST_PYTHON = 11;
const PYTHONS = ["python3", ...[15, 14, 13, 12, 11].map((minor) => `python3.${minor}`), "python"];
const VERSION = "import sys; print(sys.version_info.major, sys.version_info.minor)";
const TAIL_LINES = 30;
const WHERE = "Put the path of a checkout of dg-lsp there, such as /path/to/dg-lsp[engine], and try again.";

/** An installation that failed: what happened, and what to do about it. */
export class InstallError extends Error {
    constructor(
        message: string,
        readonly remedy: string,
        /** The last lines of the program that failed. */
        readonly details = "",
    ) {
        super(message);
    }
}

export interface Installation {
    /** Where the environment comes to be. */
    environment: string;
    /** What pip is asked for, such as the path of a checkout with extras; empty if nobody has said. */
    package: string;
    searchPath: string;
    report: (line: string) => void;
    signal: AbortSignal;
}

/**
 * Make the environment and install the server; returns its program.
 *
 * @throws {InstallError} With what to do. What had been made is removed, unless a server that runs was there before.
 */
export async function install(installation: Installation): Promise<string> {
    const { environment, report, signal } = installation;
    if (installation.package === "") {
        throw new InstallError("dg.server.package does not say what to install.", WHERE);
    }
    const program = inEnvironment(environment, PROGRAM);
    const wasThere = await runs(program);
    try {
        const python = await findPython(installation.searchPath);
        report(`Making a virtual environment with ${python}`);
        // What is left of one whose Python has gone would be kept, and would not run.
        const anew = wasThere ? [] : ["--clear"];
        await run(python, ["-m", "venv", environment, ...anew], installation, venvFailed);
        const pip = ["-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "--upgrade"];
        await run(inEnvironment(environment, "python"), [...pip, installation.package], installation, pipFailed);
        await run(program, ["--version"], installation, (details) => doesNotRun(program, details));
        return program;
    } catch (error) {
        if (!wasThere) {
            await rm(environment, { recursive: true, force: true });
        }
        throw signal.aborted ? new InstallError("The installation was cancelled.", "") : error;
    }
}

/**
 * A Python that is new enough.
 *
 * @throws {InstallError} There is none.
 */
export async function findPython(searchPath: string): Promise<string> {
    for (const name of PYTHONS) {
        const path = onPath(name, searchPath);
        if (path !== undefined && (await isNewEnough(path))) {
            return path;
        }
    }
    throw new InstallError(
        `No Python of version 3.${OLDEST_PYTHON} or newer was found.`,
        "Install one so that python3 is on the PATH, and try again.",
    );
}

async function isNewEnough(python: string): Promise<boolean> {
    try {
        const { stdout } = await promisify(execFile)(python, ["-c", VERSION]);
        const [major = 0, minor = 0] = stdout.trim().split(" ").map(Number);
        return major > 3 || (major === 3 && minor >= OLDEST_PYTHON);
    } catch {
        return false;
    }
}

async function runs(program: string): Promise<boolean> {
    try {
        await promisify(execFile)(program, ["--version"]);
        return true;
    } catch {
        return false;
    }
}

function venvFailed(details: string): InstallError {
    const remedy = "Install Python's own venv module (on Debian and Ubuntu the package python3-venv), and try again.";
    return new InstallError("Python could not make a virtual environment.", remedy, details);
}

function pipFailed(details: string): InstallError {
    const line = details.split("\n").findLast((text) => text.startsWith("ERROR")) ?? "pip failed.";
    const remedy = "The log has all that pip said. What is installed is in the setting dg.server.package.";
    return new InstallError(`The package could not be installed. ${line}`, remedy, details);
}

function doesNotRun(program: string, details: string): InstallError {
    return new InstallError(`${program} was installed, but does not run.`, "See the log.", details);
}

type Failure = (details: string) => InstallError;

/** Run a program to its end, its lines reported; a failure carries the last of them. */
async function run(program: string, args: string[], { report, signal }: Installation, failed: Failure): Promise<void> {
    signal.throwIfAborted();
    // A group of its own: pip starts programs that must end with it.
    const child = spawn(program, args, { detached: true, stdio: ["ignore", "pipe", "pipe"] });
    const stop = () => {
        if (child.pid !== undefined) {
            process.kill(-child.pid, "SIGTERM");
        }
    };
    signal.addEventListener("abort", stop, { once: true });
    const lines: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
        createInterface(stream).on("line", (line) => {
            lines.push(line);
            report(line);
        });
    }
    try {
        const status = await new Promise<number | null>((resolve, reject) => {
            child.on("close", resolve).on("error", reject);
        });
        if (status !== 0) {
            throw failed(lines.slice(-TAIL_LINES).join("\n"));
        }
    } catch (error) {
        throw error instanceof InstallError ? error : failed(String(error));
    } finally {
        signal.removeEventListener("abort", stop);
    }
}

/** Where the server's program is. Nothing here talks to VS Code. */
import { accessSync, constants, statSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, isAbsolute, join } from "node:path";

export const PROGRAM = "dg-lsp";

export interface Place {
    /** The setting `dg.server.path`, whatever it is; empty for none. */
    path: unknown;
    /** The variable PATH. */
    searchPath: string;
    /** The virtual environment that this extension makes on request. */
    environment: string;
}

/** A program to run, or why there is none. */
export type Found = { program: string } | { wrong: string } | "missing";

/** The chosen program, else the one on the PATH, else the private one. */
export function locate(place: Place): Found {
    if (typeof place.path !== "string") {
        return { wrong: "The setting dg.server.path must be a string." };
    }
    if (place.path !== "") {
        return chosen(place.path, place.searchPath);
    }
    const program = onPath(PROGRAM, place.searchPath) ?? executable(inEnvironment(place.environment, PROGRAM));
    return program === undefined ? "missing" : { program };
}

/** A program of a virtual environment. */
export function inEnvironment(environment: string, program: string): string {
    return join(environment, "bin", program);
}

/** A program's place on the PATH. */
export function onPath(name: string, searchPath: string): string | undefined {
    const directories = searchPath.split(delimiter).filter(isAbsolute);
    return directories.map((directory) => executable(join(directory, name))).find((path) => path !== undefined);
}

function chosen(path: string, searchPath: string): Found {
    const expanded = path.startsWith("~/") ? join(homedir(), path.slice(2)) : path;
    const program = isAbsolute(expanded) ? executable(expanded) : onPath(expanded, searchPath);
    return program === undefined ? { wrong: `The setting dg.server.path names no program: ${path}` } : { program };
}

function executable(path: string): string | undefined {
    try {
        accessSync(path, constants.X_OK);
        return statSync(path).isFile() ? path : undefined;
    } catch {
        return undefined;
    }
}

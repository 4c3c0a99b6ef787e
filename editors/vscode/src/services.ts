import type * as vscode from "vscode";
import type { Connection } from "./connection";
import type { Report } from "./report";
import type { StatusBar } from "./statusBar";

/** What the commands work with; made once, in `extension.ts`. */
export interface Services {
    connection: Connection;
    status: StatusBar;
    log: vscode.LogOutputChannel;
    report: Report;
    /** The virtual environment that is made on request. */
    environment: string;
}

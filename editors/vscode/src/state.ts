import type { ServerStatus } from "./protocol";

/** The server's states, and those in which there is no server to tell one. */
export type Status =
    | ServerStatus
    | { state: "starting" | "missing" | "installing" | "stopped"; message: string; remedy?: string; model?: null };

export type Tone = "normal" | "warning" | "error";

/** How a status looks in the status bar. */
export interface Appearance {
    text: string;
    tone: Tone;
    /** The state in words, for the tooltip and for screen readers. */
    title: string;
    lines: string[];
}

const ICONS: Record<Status["state"], string> = {
    starting: "$(loading~spin)",
    missing: "$(cloud-download)",
    installing: "$(loading~spin)",
    stopped: "$(error)",
    idle: "$(sparkle)",
    loading: "$(loading~spin)",
    ready: "$(sparkle)",
    working: "$(loading~spin)",
    snoozed: "$(bell-slash)",
    off: "$(circle-slash)",
    error: "$(error)",
};

const TITLES: Record<Status["state"], string> = {
    starting: "starting",
    missing: "not installed",
    installing: "installing",
    stopped: "error: the server has stopped",
    idle: "idle",
    loading: "loading",
    ready: "ready",
    working: "working",
    snoozed: "snoozed",
    off: "off",
    error: "error",
};

/** While these hold, a language that is switched off is what there is to say. */
const QUIET = new Set<Status["state"]>(["idle", "loading", "ready", "working"]);

/** What to show for a status, in a file of a language for which completions are on or off. */
export function appearance(status: Status, language: { name: string; enabled: boolean } | undefined): Appearance {
    if (language?.enabled === false && QUIET.has(status.state)) {
        return appearance({ state: "off", message: `Completions are off for ${language.name}.` }, undefined);
    }
    const percentage = percent(status);
    return {
        text: `${ICONS[status.state]} dg${percentage && ` ${percentage}`}`,
        tone: tone(status.state),
        title: `dg-lsp: ${TITLES[status.state]}${percentage && ` ${percentage}`}`,
        lines: [status.message, status.remedy ?? "", status.model ? `Model: ${status.model}` : ""].filter(Boolean),
    };
}

function percent(status: Status): string {
    const fraction = status.state === "loading" ? status.fraction : undefined;
    return typeof fraction === "number" ? `${Math.round(100 * fraction)}%` : "";
}

function tone(state: Status["state"]): Tone {
    if (state === "error" || state === "stopped") {
        return "error";
    }
    return state === "missing" ? "warning" : "normal";
}

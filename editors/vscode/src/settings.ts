/** Settings as the server takes them, from what VS Code knows. Nothing here talks to VS Code. */

export type Values = Readonly<Record<string, unknown>>;

export const SECTION = "dg";

/** Groups of settings that are about this extension; the server refuses keys that it does not know. */
export const CLIENT_ONLY = ["server", "trace"] as const;

/**
 * The section `dg` for the server: without this extension's own settings, and with VS Code's per-language values
 * (`"[python]": { "dg.multiLine": "never" }`) laid over what `dg.languages` says of those languages.
 */
export function forServer(section: Values, perLanguage: ReadonlyMap<string, Values>): Values {
    const values = Object.fromEntries(Object.entries(section).filter(([key]) => !isClientOnly(key)));
    return perLanguage.size === 0 ? values : { ...values, languages: languages(values["languages"], perLanguage) };
}

/** Whether completions are on for a language, as the server will find. */
export function isEnabled(values: Values, language: string): boolean {
    const choices = asValues(values["languages"]);
    const choice = asOverrides(choices[language] ?? choices["*"]);
    return values["enabled"] !== false && choice["enabled"] !== false;
}

function languages(chosen: unknown, perLanguage: ReadonlyMap<string, Values>): Values {
    const merged: Record<string, unknown> = { ...asValues(chosen) };
    for (const [language, values] of perLanguage) {
        merged[language] = { ...asOverrides(merged[language] ?? merged["*"]), ...values };
    }
    return merged;
}

function asOverrides(choice: unknown): Values {
    return typeof choice === "boolean" ? { enabled: choice } : asValues(choice);
}

function asValues(value: unknown): Values {
    return typeof value === "object" && value !== null ? (value as Values) : {};
}

function isClientOnly(key: string): boolean {
    return (CLIENT_ONLY as readonly string[]).includes(key);
}

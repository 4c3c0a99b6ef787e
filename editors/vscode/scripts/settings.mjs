// Write the settings of `package.json` from the server's own schema:
//
//     npm run settings [-- /path/to/dg-lsp]
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { format } from "prettier";

const server = process.argv[2] ?? process.env.DG_LSP ?? "dg-lsp";
const schema = JSON.parse(execFileSync(server, ["schema"], { encoding: "utf8" }));

// Those of this extension; the server never sees them.
const CLIENT = {
    "dg.server.path": {
        type: "string",
        default: "",
        markdownDescription:
            "The program of the language server. Empty: `dg-lsp` on the PATH, else the one that *dg-lsp: Install or Update the Server* made.",
    },
    "dg.server.arguments": {
        type: "array",
        items: { type: "string" },
        default: [],
        description: "Arguments for the program.",
    },
    "dg.server.package": {
        type: "string",
        default: "",
        markdownDescription:
            "What *dg-lsp: Install or Update the Server* installs: a checkout of dg-lsp, as `/path/to/dg-lsp[engine]`, or whatever else pip takes.",
    },
    "dg.trace.server": {
        type: "string",
        enum: ["off", "messages", "verbose"],
        default: "off",
        description: "Write the messages between VS Code and the server to the log.",
    },
};

const perLanguage = schema.properties.languages.additionalProperties.anyOf.find(
    ({ type }) => type === "object",
).properties;

/** One level of the schema as settings; objects with fields become groups. */
function settings(prefix, properties) {
    return Object.entries(properties).flatMap(([key, property]) => {
        const name = `${prefix}.${key}`;
        return property.properties ? settings(name, property.properties) : [[name, setting(name, property)]];
    });
}

function setting(name, { description, anyOf, ...rest }) {
    return {
        scope: scope(name),
        ...(anyOf ? union(anyOf) : rest),
        ...("default" in rest ? { default: rest.default } : {}),
        ...(description?.includes("`") ? { markdownDescription: description } : { description }),
    };
}

/** `integer or null` as VS Code's settings editor understands it. */
function union(alternatives) {
    return Object.assign({}, ...alternatives, { type: alternatives.map(({ type }) => type) });
}

function scope(name) {
    if (name === "dg.engine.token") {
        return "machine";
    }
    if (name.startsWith("dg.engine.") || name.startsWith("dg.server.")) {
        return "machine-overridable";
    }
    return name.slice("dg.".length) in perLanguage ? "language-overridable" : "window";
}

const groups = [
    [
        "Completions",
        settings("dg", Object.fromEntries(Object.entries(schema.properties).filter(([key]) => key !== "engine"))),
    ],
    ["Engine", settings("dg.engine", schema.properties.engine.properties)],
    ["Server", Object.entries(CLIENT).map(([name, property]) => [name, { scope: scope(name), ...property }])],
];

const manifest = JSON.parse(readFileSync("package.json", "utf8"));
manifest.contributes.configuration = groups.map(([title, entries]) => ({
    title,
    properties: Object.fromEntries(entries),
}));
// An untrusted folder may not choose what runs, nor where the text goes.
manifest.capabilities.untrustedWorkspaces.restrictedConfigurations = groups
    .flatMap(([, entries]) => entries.map(([name]) => name))
    .filter((name) => /^dg\.(server|engine)\./.test(name));
writeFileSync("package.json", await format(JSON.stringify(manifest, null, 2), { parser: "json-stringify" }));

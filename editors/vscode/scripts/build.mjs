// Bundle the extension (`dist/extension.js`), or with `--test` its tests (`dist/test/*.js`).
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const common = { bundle: true, platform: "node", format: "cjs", target: "node18", logLevel: "warning" };

/** The licences of the packages whose files are in the bundle. */
function licences(inputs) {
    const packages = inputs.flatMap((input) => /^.*node_modules\/(@[^/]+\/)?[^/]+/.exec(input)?.[0] ?? []);
    return [...new Set(packages)].sort().map(licence).join("\n");
}

function licence(directory) {
    const file = readdirSync(directory).find((name) => /^licen[cs]e/i.test(name));
    if (file === undefined) {
        throw new Error(`${directory} has no licence`);
    }
    return `${directory.replace(/^.*node_modules\//, "")}\n\n${readFileSync(`${directory}/${file}`, "utf8")}`;
}

if (process.argv.includes("--test")) {
    rmSync("dist/test", { recursive: true, force: true });
    const entryPoints = readdirSync("test").map((name) => `test/${name}`);
    await build({ ...common, entryPoints, outdir: "dist/test", sourcemap: "inline" });
} else {
    const { metafile } = await build({
        ...common,
        entryPoints: ["src/extension.ts"],
        outfile: "dist/extension.js",
        external: ["vscode"],
        minify: true,
        metafile: true,
    });
    writeFileSync("dist/third-party-licences.txt", licences(Object.keys(metafile.inputs)));
}

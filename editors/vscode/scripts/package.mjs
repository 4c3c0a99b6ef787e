// Bundle the extension and make the .vsix that a user can drop in; and one of the harness, for the tests.
import { execFileSync } from "node:child_process";
import { copyFileSync, readdirSync, rmSync } from "node:fs";

for (const name of readdirSync(".").filter((file) => file.endsWith(".vsix"))) {
    rmSync(name);
}
copyFileSync("../../LICENSE", "LICENSE");
execFileSync("node", ["scripts/build.mjs"], { stdio: "inherit" });
// The bundle holds all that runs, so nothing of node_modules is packed.
const options = ["--no-dependencies", "--allow-missing-repository", "--no-rewrite-relative-links"];
execFileSync("node_modules/.bin/vsce", ["package", ...options], { stdio: "inherit" });
const quiet = ["--skip-license", "--out", "harness.vsix"];
execFileSync("../node_modules/.bin/vsce", ["package", ...options, ...quiet], { cwd: "harness", stdio: "inherit" });

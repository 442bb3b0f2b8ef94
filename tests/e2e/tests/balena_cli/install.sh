# balena's command line from the npm registry alone, into the folder that this runs in, with a Node.js of
# its own. What its list of exact versions pins to other places is left out or taken from the registry;
# no script of a package runs.
set -eu
npm pack --silent balena-cli@25.2.6
tar -xzf balena-cli-25.2.6.tgz
cd package
rm npm-shrinkwrap.json
node -e '
const fs = require("fs");
const list = JSON.parse(fs.readFileSync("package.json"));
delete list.devDependencies;
delete list.scripts;
delete list.dependencies["balena-preload"];
list.dependencies["node-linux-" + process.arch] = "24.21.0";
list.overrides = { "unbzip2-stream": "1.4.3", "typedarray.prototype.slice": "1.0.5" };
fs.writeFileSync("package.json", JSON.stringify(list, null, 2));
'
npm install --omit=dev --ignore-scripts --no-audit --no-fund --silent
ln -sf "$PWD/node_modules/node-linux-$(node -p process.arch)/bin/node" ../node

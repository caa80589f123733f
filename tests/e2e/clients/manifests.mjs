// Writes what the build tools of both clients make of operations/ into the folder OUT: Apollo's manifest, and graphql-codegen's.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { generatePersistedQueryManifest } from "@apollo/generate-persisted-query-manifest";
import { codegen } from "@graphql-codegen/core";
import { preset } from "@graphql-codegen/client-preset";
import { parse } from "graphql";

const out = process.env.OUT;
mkdirSync(out, { recursive: true });

const manifest = await generatePersistedQueryManifest({ documents: ["operations/*.graphql"] });
writeFileSync(join(out, "persisted-query-manifest.json"), JSON.stringify(manifest));

// What the command `graphql-codegen` does with `preset: "client"` and these presetConfigs.
const documents = readdirSync("operations").map((name) => {
  const rawSDL = readFileSync(join("operations", name), "utf8");
  return { location: `operations/${name}`, rawSDL, document: parse(rawSDL) };
});
const schema = parse(readFileSync(process.env.SCHEMA, "utf8"));
const config = { useTypeImports: true, enumType: "string-literal" };
for (const mode of ["replaceDocumentWithHash", "embedHashInDocument"]) {
  const made = await preset.buildGeneratesSection({
    baseOutputDir: `${out}/${mode}/`, presetConfig: { persistedDocuments: { mode }, fragmentMasking: false },
    schema, documents, config, plugins: [], pluginMap: {}, pluginContext: {}, documentTransforms: [],
  });
  for (const each of made) {
    mkdirSync(dirname(each.filename), { recursive: true });
    writeFileSync(each.filename, await codegen(each));
  }
}

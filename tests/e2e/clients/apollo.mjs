// Apollo Client: ids from the manifest that its own tool wrote; and automatic ones, which it makes as it goes.
import { createHash } from "node:crypto";
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { createFragmentRegistry } from "@apollo/client/cache";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";
import { generatePersistedQueryIdsFromManifest } from "@apollo/persisted-query-lists";
import { readFileSync } from "node:fs";
import { authorization, outcome, read, recording, say, url, variables } from "./said.mjs";

const document = (name) => gql(readFileSync(`operations/${name}.graphql`, "utf8"));
const client = (options) =>
  new ApolloClient({
    cache: new InMemoryCache({ fragments: createFragmentRegistry(document("Parts")) }),
    link: ApolloLink.from([new PersistedQueryLink(options), new HttpLink({ uri: url, headers: { authorization }, fetch: recording })]),
    defaultOptions: { query: { fetchPolicy: "network-only" } },
  });

const registered = client(generatePersistedQueryIdsFromManifest({ loadManifest: async () => JSON.parse(read("persisted-query-manifest.json")) }));
await say("query", async () => (await registered.query({ query: document("Predict"), variables })).data);
await say("mutation", async () => (await registered.mutate({ mutation: document("Bought"), variables: outcome })).data);

const automatic = client({ sha256: (text) => createHash("sha256").update(text).digest("hex") });
await say("automatic", async () => (await automatic.query({ query: gql`query Unknown { viewer { tenant } }` })).data);

// urql with graphql-codegen: documents emptied of everything but their ids, sent as `documentId`; and whole ones that carry their ids,
// by persistedExchange, which makes automatic ids where it is not told any.
import { Client, fetchExchange } from "@urql/core";
import { persistedExchange } from "@urql/exchange-persisted";
import { authorization, outcome, recording, say, url, variables } from "./said.mjs";

const emptied = await import(`${process.env.OUT}/replaceDocumentWithHash/graphql.ts`);
const whole = await import(`${process.env.OUT}/embedHashInDocument/graphql.ts`);
const client = (exchanges) =>
  new Client({
    url, exchanges, fetch: recording, fetchOptions: { headers: { authorization } }, requestPolicy: "network-only", preferGetMethod: false,
  });
const data = async (result) => {
  const { data, error } = await result.toPromise();
  if (error) throw error;
  return data;
};
const byId = (document) => ({ kind: "Document", definitions: [], documentId: document.__meta__.hash });

const named = client([fetchExchange]);
await say("documentId query", () => data(named.query(byId(emptied.PredictDocument), variables)));
await say("documentId mutation", () => data(named.mutation(byId(emptied.BoughtDocument), outcome)));

const generateHash = async (_, document) => document.__meta__.hash;
const options = { enforcePersistedQueries: true, enableForMutation: true, preferGetForPersistedQueries: false };
const persisted = client([persistedExchange({ ...options, generateHash }), fetchExchange]);
await say("persisted query", () => data(persisted.query(whole.PredictDocument, variables)));
await say("persisted mutation", () => data(persisted.mutation(whole.BoughtDocument, outcome)));

const automatic = client([persistedExchange(), fetchExchange]);
await say("automatic", () => data(automatic.query("query Unknown { viewer { tenant } }", {})));

// What both clients share: a fetch that remembers what went over the wire, and one JSON line for what came of it.
import { readFileSync } from "node:fs";

export const url = `${process.env.TURNOUT_URL}/graphql`;
export const authorization = `Bearer ${process.env.TURNOUT_TOKEN}`;
export const variables = { model: "flowers", row: [1, 2], unit: "u-1" };
export const outcome = { unit: "u-1", key: "k-1" };
export const read = (name) => readFileSync(`${process.env.OUT}/${name}`, "utf8");

const sent = [];
export const recording = (input, init = {}) => {
  sent.push({ method: init.method ?? "GET", url: String(input), body: init.body ?? null });
  return fetch(input, init);
};

// `does` answers with data or throws; what went over the wire meanwhile goes along.
export const say = async (name, does) => {
  sent.length = 0;
  let data = null;
  let error = null;
  try {
    data = await does();
  } catch (problem) {
    error = problem.message;
  }
  console.log(JSON.stringify({ name, data, error, sent: [...sent] }));
};

// Runs graphql-http's audit suite against AUDIT_URL with AUDIT_TOKEN and prints one JSON line an audit.
import { serverAudits } from "graphql-http";

const token = process.env.AUDIT_TOKEN;
const fetchFn = (url, init = {}) => fetch(url, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } });

for (const audit of serverAudits({ url: process.env.AUDIT_URL, fetchFn })) {
  const { id, name, status, reason } = await audit.fn();
  console.log(JSON.stringify({ id, name, status, reason: reason ?? null }));
}

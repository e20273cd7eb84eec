// Requests to the server that this page came from.

/** What the server refuses: its sentence, and a kind that the page decides by. */
export class Refusal extends Error {
  constructor(sentence, kind, status) {
    super(sentence);
    this.kind = kind;
    this.status = status;
  }
}

/** The response to a request. Throws a Refusal when it is refused, and a TypeError when the server does not answer. */
export async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  const sentence = answer.error ?? `The server failed (${response.status}); its terminal says why.`;
  throw new Refusal(sentence, answer.kind ?? "failed", response.status);
}

export function element(id) {
  return document.getElementById(id);
}

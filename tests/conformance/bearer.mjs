// Loaded before the conformance suite, which has no option for a token: adds ours to every request it makes.
import http from 'node:http';
import { getGlobalDispatcher, setGlobalDispatcher } from 'undici';

const authorization = `Bearer ${process.env.CONFORMANCE_TOKEN}`;

const withToken = (headers) =>
  Array.isArray(headers) ? [...headers, 'authorization', authorization]
  : typeof headers?.entries === 'function' ? [...headers.entries(), ['authorization', authorization]].flat()
  : { ...headers, authorization };

setGlobalDispatcher(getGlobalDispatcher().compose(
  (dispatch) => (options, handler) => dispatch({ ...options, headers: withToken(options.headers) }, handler),
));

const { request } = http;
http.request = (...arguments_) => {
  const made = request(...arguments_);
  made.setHeader('authorization', authorization);
  return made;
};

/*
 * http_server.h: HTTP/1.1 on a unix socket, in threads of its own, for the functions of api.h.
 *
 *     accept thread     listens on the path, takes the socket over from a dead process, and makes it anew within a second if
 *                       somebody removes it
 *     server thread     libmicrohttpd: reads requests, suspends each, posts it to the reactor, sends the reply when resumed
 *     reactor           a fiber a request runs api_handle
 *
 *   limits            256 connections (the next is closed at once), 30 s of silence on one, bodies as in api.h
 *   errors            OXE_BUSY: another process listens there
 */
#ifndef OXBOW_CONTROL_API_HTTP_SERVER_H
#define OXBOW_CONTROL_API_HTTP_SERVER_H

#include "control/api/api.h"

struct http_server;

/* Answers as soon as it returns (once the reactor runs). Blocks for a moment; called before the reactor runs. */
OX_CHECKED int http_server_start(struct rt *rt, struct api *api, const char *path, struct http_server **out);

#endif

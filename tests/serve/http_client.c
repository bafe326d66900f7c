/* A request over HTTP for tests: http_client PORT METHOD PATH < BODY prints the status, then the body of the answer.
 *   http_client PORT METHOD PATH hang-up: the same, but goes away once the answer has begun, or after a tenth of a
 *   second.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { MOST = 1 << 24 };

static int fail(const char *what) {
    perror(what);
    return EXIT_FAILURE;
}

static size_t receive(int to, char *answer) {
    size_t length = 0;
    for (ssize_t got; length < MOST && (got = recv(to, answer + length, MOST - length, 0)) > 0;) length += (size_t)got;
    answer[length] = '\0';
    return length;
}

int main(int argc, char **argv) {
    static char body[MOST], answer[MOST + 1];
    char head[512], byte;
    if (argc < 4) return EXIT_FAILURE;
    size_t bytes = fread(body, 1, sizeof body, stdin);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int to = socket(AF_INET, SOCK_STREAM, 0);
    if (to < 0 || connect(to, (struct sockaddr *)&address, sizeof address) != 0) return fail("connect");
    int length = snprintf(head, sizeof head, "%s %s HTTP/1.0\r\nContent-Length: %zu\r\n\r\n", argv[2], argv[3], bytes);
    if (send(to, head, (size_t)length, 0) != length || send(to, body, bytes, 0) != (ssize_t)bytes) return fail("send");
    if (argc > 4) {
        struct timeval tenth = {.tv_usec = 100000};
        setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &tenth, sizeof tenth);
        if (recv(to, &byte, 1, 0) == 0) return fail("no answer");
        return EXIT_SUCCESS;
    }
    receive(to, answer);
    const char *text = strstr(answer, "\r\n\r\n"), *status = strchr(answer, ' ');
    if (!text || !status) return fail("no answer");
    printf("%.3s\n%s", status + 1, text + 4);
    return EXIT_SUCCESS;
}

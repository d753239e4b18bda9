/* The upstream that is played for the load benchmarks: answers every POST with a prepared file after a delay.
 *
 *   upstream FILE...            listens on a free loopback port, and writes "http://127.0.0.1:PORT" on its first line
 *   GET /_set?answer=N&delay=MS from now on the Nth file, after so many milliseconds; answers what was counted since
 *
 * One thread, epoll, answers straight from mapped files: a request costs it some ten microseconds. It never parses a
 * body and never checks a key. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 16384, PIECE = 1 << 18, EVENTS = 512, CHUNK_LINE = 64 };
enum phase { READING_HEAD, READING_BODY, READING_CHUNKS, WAITING, SENDING };

struct conn {
  int fd;
  enum phase phase;
  int is_closing, is_counted, is_dead;
  char head[HEAD + 1];
  size_t filled;
  long long left;
  char line[CHUNK_LINE];
  int line_length, in_trailer;
  double due;
  struct conn *next;
  char answer_head[256];
  const char *body;
  size_t head_length, body_length, sent;
};

struct answer { const char *bytes; size_t length; };

static struct answer *answers;
static int answer_count, chosen;
static double delay;
static long long requests, now_open, most_open, bytes_in;
static struct conn *first_due, *last_due;
static int poller;
static char scratch[PIECE];

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

static void die(const char *what) {
  perror(what);
  exit(2);
}

static void watch(struct conn *conn, uint32_t events, int how) {
  struct epoll_event event = {.events = events, .data.ptr = conn};
  if (epoll_ctl(poller, how, conn->fd, &event) < 0) die("epoll_ctl");
}

static void uncount(struct conn *conn) {
  if (conn->is_counted) now_open--;
  conn->is_counted = 0;
}

static void end_conn(struct conn *conn) {
  uncount(conn);
  close(conn->fd);
  /* One that waits for its time is still in the line, and is freed there. */
  if (conn->phase == WAITING) conn->is_dead = 1;
  else free(conn);
}

static void start_anew(struct conn *conn) {
  conn->phase = READING_HEAD;
  conn->filled = 0;
}

/* Whether the connection goes on. */
static int send_answer(struct conn *conn) {
  while (conn->sent < conn->head_length + conn->body_length) {
    ssize_t wrote;
    if (conn->sent < conn->head_length)
      wrote = send(conn->fd, conn->answer_head + conn->sent, conn->head_length - conn->sent, MSG_NOSIGNAL | MSG_MORE);
    else
      wrote = send(conn->fd, conn->body + (conn->sent - conn->head_length),
                   conn->head_length + conn->body_length - conn->sent, MSG_NOSIGNAL);
    if (wrote < 0) {
      if (errno != EAGAIN) { end_conn(conn); return 0; }
      watch(conn, EPOLLOUT, EPOLL_CTL_MOD);
      return 0;
    }
    conn->sent += wrote;
  }
  uncount(conn);
  if (conn->is_closing) { end_conn(conn); return 0; }
  start_anew(conn);
  watch(conn, EPOLLIN, EPOLL_CTL_MOD);
  return 1;
}

static void answer_with(struct conn *conn, const char *body, size_t length) {
  conn->body = body;
  conn->body_length = length;
  conn->sent = 0;
  conn->head_length = snprintf(conn->answer_head, sizeof conn->answer_head,
                               "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n%s\r\n", length,
                               conn->is_closing ? "connection: close\r\n" : "");
  conn->phase = SENDING;
  send_answer(conn);
}

static void end_request(struct conn *conn) {
  if (delay <= 0) { answer_with(conn, answers[chosen].bytes, answers[chosen].length); return; }
  conn->phase = WAITING;
  conn->due = now() + delay;
  conn->next = NULL;
  if (last_due) last_due->next = conn; else first_due = conn;
  last_due = conn;
}

static void answer_due(void) {
  double at = now();
  while (first_due && first_due->due <= at) {
    struct conn *conn = first_due;
    first_due = conn->next;
    if (!first_due) last_due = NULL;
    if (conn->is_dead) free(conn);
    else answer_with(conn, answers[chosen].bytes, answers[chosen].length);
  }
}

static char *header(char *head, const char *name) {
  char *found = strcasestr(head, name);
  return found ? found + strlen(name) : NULL;
}

static void control(struct conn *conn) {
  static char told[256];
  int length = snprintf(told, sizeof told, "{\"requests\":%lld,\"most_at_once\":%lld,\"bytes_in\":%lld}", requests, most_open, bytes_in);
  char *given;
  if (strncmp(conn->head, "GET /_set", 9) == 0) {
    if ((given = header(conn->head, "answer="))) chosen = atoi(given) % answer_count;
    if ((given = header(conn->head, "delay="))) delay = atof(given) / 1000;
    requests = bytes_in = 0;
    most_open = now_open;
  }
  answer_with(conn, told, length);
}

/* Framing of a chunked body; answers whether its end was seen. */
static int eat_chunks(struct conn *conn, const char *data, size_t size) {
  while (size) {
    if (conn->left > 0) {
      size_t take = (long long)size < conn->left ? size : (size_t)conn->left;
      data += take, size -= take, conn->left -= take;
      continue;
    }
    char c = *data++;
    size--;
    if (c != '\n') {
      if (conn->line_length < CHUNK_LINE - 1 && c != '\r') conn->line[conn->line_length++] = c;
      continue;
    }
    conn->line[conn->line_length] = 0;
    int is_empty = conn->line_length == 0;
    conn->line_length = 0;
    if (conn->in_trailer) { if (is_empty) return 1; continue; }
    if (is_empty) continue;
    conn->left = strtoll(conn->line, NULL, 16);
    if (conn->left == 0) conn->in_trailer = 1;
  }
  return 0;
}

static void take_body(struct conn *conn, const char *data, size_t size) {
  bytes_in += size;
  if (conn->phase == READING_CHUNKS) {
    if (eat_chunks(conn, data, size)) end_request(conn);
  } else if ((conn->left -= size) <= 0) {
    end_request(conn);
  }
}

static void begin_request(struct conn *conn, size_t head_length) {
  char *given;
  conn->head[head_length - 1] = 0;
  conn->is_closing = header(conn->head, "\r\nconnection: close") != NULL || strstr(conn->head, " HTTP/1.0\r") != NULL;
  if (strncmp(conn->head, "GET ", 4) == 0) { control(conn); return; }
  requests++, now_open++, conn->is_counted = 1;
  if (now_open > most_open) most_open = now_open;
  given = header(conn->head, "\r\ncontent-length:");
  conn->left = given ? strtoll(given, NULL, 10) : 0;
  conn->phase = READING_BODY;
  if (header(conn->head, "\r\ntransfer-encoding: chunked")) {
    conn->phase = READING_CHUNKS;
    conn->left = conn->line_length = conn->in_trailer = 0;
  }
  if (header(conn->head, "\r\nexpect: 100-continue")) send(conn->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL);
  take_body(conn, conn->head + head_length, conn->filled - head_length);
}

static void receive(struct conn *conn) {
  for (;;) {
    int in_head = conn->phase == READING_HEAD;
    ssize_t got = in_head ? recv(conn->fd, conn->head + conn->filled, HEAD - conn->filled, 0) : recv(conn->fd, scratch, PIECE, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      if (conn->phase == WAITING) watch(conn, 0, EPOLL_CTL_MOD);
      end_conn(conn);
      return;
    }
    if (!in_head) {
      if (conn->phase != READING_BODY && conn->phase != READING_CHUNKS) return;
      take_body(conn, scratch, got);
      return;
    }
    conn->filled += got;
    conn->head[conn->filled] = 0;
    char *end = strstr(conn->head, "\r\n\r\n");
    if (end) { begin_request(conn, end - conn->head + 4); return; }
    if (conn->filled == HEAD) { end_conn(conn); return; }
  }
}

static void accept_all(int listener) {
  int fd, on = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    struct conn *conn = calloc(1, sizeof *conn);
    conn->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(conn, EPOLLIN, EPOLL_CTL_ADD);
  }
}

static void map_answers(int count, char **paths) {
  answer_count = count;
  answers = calloc(count, sizeof *answers);
  for (int i = 0; i < count; i++) {
    struct stat about;
    int fd = open(paths[i], O_RDONLY);
    if (fd < 0 || fstat(fd, &about) < 0) die(paths[i]);
    answers[i].length = about.st_size;
    answers[i].bytes = mmap(NULL, about.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (answers[i].bytes == MAP_FAILED) die("mmap");
    close(fd);
  }
}

int main(int count, char **words) {
  if (count < 2) { fprintf(stderr, "upstream FILE...\n"); return 2; }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  map_answers(count - 1, words + 1);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof at;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&at, size) < 0 || listen(listener, 16384) < 0) die("listen");
  getsockname(listener, (struct sockaddr *)&at, &size);
  printf("http://127.0.0.1:%d\n", ntohs(at.sin_port));
  fflush(stdout);
  poller = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int wait = first_due ? (int)((first_due->due - now()) * 1000 + 1) : -1;
    int ready = epoll_wait(poller, events, EVENTS, first_due && wait < 0 ? 0 : wait);
    for (int i = 0; i < ready; i++) {
      struct conn *conn = events[i].data.ptr;
      if (!conn) accept_all(listener);
      else if (events[i].events & EPOLLOUT) send_answer(conn);
      else receive(conn);
    }
    answer_due();
  }
}

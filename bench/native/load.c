/* The clients of the load benchmarks: equal POSTs, so many at once or so many a second, counted and timed.
 *
 *   load PORT BODY HEADERS COUNT AT_ONCE OVER_S FRESH TIMEOUT_S
 *
 * Sends the file BODY COUNT times with the head that stands in the file HEADERS (request line and header fields, each
 * ended by CRLF; length and the empty line are added). OVER_S 0: always AT_ONCE under way. Otherwise request i is due
 * at i * OVER_S / COUNT, whatever became of those before. FRESH 1: every request over a connection of its own. The
 * first "@@@@@@@@" of the body becomes the request's number, so that no two are alike.
 *
 * Writes JSON: for each status (0: none came) its count, milliseconds from when the request was due to its answer's
 * last byte, and how many had a Retry-After. One thread, epoll. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 16384, PIECE = 1 << 18, EVENTS = 512, FRONT = 4096, STATUSES = 600 };
enum framing { BY_LENGTH, BY_CHUNKS, BY_CLOSE };

struct conn {
  int fd, is_busy, is_connected, in_body, is_closing, status, has_retry_after, in_trailer, line_length;
  enum framing framing;
  double due, began;
  char *out;
  size_t out_length, sent, filled;
  long long left;
  char head[HEAD + 1], line[64];
  struct conn *idle;
};

struct times { float *ms; long count, room, retry_after, bytes_mixed; };

static struct times seen[STATUSES];
static struct conn *idle;
static struct conn **all;
static long all_count, started, ended, count, at_once, broken_by_error[200];
static long long bytes_read;
static const char *body;
static size_t body_length;
static char head_text[HEAD];
static double over, timeout, began_at;
static int fresh, poller, port;
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

static void note(struct conn *conn, int status) {
  struct times *times = &seen[status < 0 || status >= STATUSES ? 0 : status];
  if (times->count == times->room) {
    times->room = times->room ? times->room * 2 : 1024;
    times->ms = realloc(times->ms, times->room * sizeof *times->ms);
  }
  times->ms[times->count++] = (now() - conn->due) * 1000;
  times->retry_after += conn->has_retry_after;
  ended++;
}

static void hang_up(struct conn *conn) {
  close(conn->fd);
  conn->fd = -1;
  conn->is_busy = conn->is_connected = 0;
}

static void fail(struct conn *conn, int error) {
  if (conn->is_busy) {
    broken_by_error[error > 0 && error < 200 ? error : 0]++;
    note(conn, 0);
  }
  hang_up(conn);
}

static void finish(struct conn *conn) {
  note(conn, conn->status);
  conn->is_busy = 0;
  if (fresh || conn->is_closing || conn->framing == BY_CLOSE) { hang_up(conn); return; }
  conn->idle = idle;
  idle = conn;
}

static void send_request(struct conn *conn) {
  size_t front = conn->out_length, whole = front + (body_length > FRONT ? body_length - FRONT : 0);
  while (conn->sent < whole) {
    ssize_t wrote;
    if (conn->sent < front)
      wrote = send(conn->fd, conn->out + conn->sent, front - conn->sent, MSG_NOSIGNAL | (whole > front ? MSG_MORE : 0));
    else
      wrote = send(conn->fd, body + FRONT + (conn->sent - front), whole - conn->sent, MSG_NOSIGNAL);
    if (wrote < 0) {
      if (errno == EAGAIN) { watch(conn, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD); return; }
      /* An early answer may still be read. */
      if (errno == EPIPE || errno == ECONNRESET) break;
      fail(conn, errno);
      return;
    }
    conn->sent += wrote;
  }
  watch(conn, EPOLLIN, EPOLL_CTL_MOD);
}

static int open_conn(struct conn *conn) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (conn->fd < 0) die("socket");
  setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  conn->is_busy = 1;
  if (connect(conn->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) { fail(conn, errno); return 0; }
  conn->is_connected = 1;
  watch(conn, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
  return 1;
}

static struct conn *find_conn(void) {
  struct conn *conn = idle;
  if (conn) { idle = conn->idle; return conn; }
  for (long i = 0; fresh && i < all_count && all_count >= at_once && at_once > 0; i++)
    if (all[i]->fd < 0) return all[i];
  conn = calloc(1, sizeof *conn);
  conn->fd = -1;
  conn->out = malloc(HEAD + FRONT + 256);
  all = realloc(all, (all_count + 1) * sizeof *all);
  return all[all_count++] = conn;
}

static void begin(double due) {
  struct conn *conn = find_conn();
  char number[32], *place;
  size_t front = body_length < FRONT ? body_length : FRONT;
  int head = snprintf(conn->out, HEAD, "%sContent-Length: %zu\r\n\r\n", head_text, body_length);
  memcpy(conn->out + head, body, front);
  conn->out[head + front] = 0;
  if ((place = memmem(conn->out + head, front, "@@@@@@@@", 8))) {
    snprintf(number, sizeof number, "%08ld", started);
    memcpy(place, number, 8);
  }
  conn->out_length = head + front;
  conn->sent = conn->filled = 0;
  conn->in_body = conn->is_closing = conn->has_retry_after = conn->line_length = conn->in_trailer = conn->status = 0;
  conn->due = due;
  conn->began = now();
  started++;
  if (conn->fd < 0) { open_conn(conn); return; }
  conn->is_busy = 1;
  send_request(conn);
}

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
      if (conn->line_length < 63 && c != '\r') conn->line[conn->line_length++] = c;
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
  bytes_read += size;
  if (conn->framing == BY_CHUNKS) {
    if (eat_chunks(conn, data, size)) finish(conn);
  } else if (conn->framing == BY_LENGTH && (conn->left -= size) <= 0) {
    finish(conn);
  }
}

static char *header(char *head, const char *name) {
  char *found = strcasestr(head, name);
  return found ? found + strlen(name) : NULL;
}

static void read_head(struct conn *conn, size_t length) {
  char *given;
  conn->head[length - 1] = 0;
  conn->in_body = 1;
  conn->status = atoi(conn->head + 9);
  conn->is_closing = header(conn->head, "\r\nconnection: close") != NULL;
  conn->has_retry_after = header(conn->head, "\r\nretry-after:") != NULL;
  conn->framing = BY_CLOSE;
  conn->left = 0;
  if (header(conn->head, "\r\ntransfer-encoding: chunked")) conn->framing = BY_CHUNKS;
  else if ((given = header(conn->head, "\r\ncontent-length:"))) conn->framing = BY_LENGTH, conn->left = strtoll(given, NULL, 10);
  take_body(conn, conn->head + length, conn->filled - length);
}

static void receive(struct conn *conn) {
  while (conn->is_busy) {
    ssize_t got = conn->in_body ? recv(conn->fd, scratch, PIECE, 0) : recv(conn->fd, conn->head + conn->filled, HEAD - conn->filled, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      if (got == 0 && conn->in_body && conn->framing == BY_CLOSE) finish(conn);
      else fail(conn, got < 0 ? errno : 0);
      return;
    }
    if (conn->in_body) { take_body(conn, scratch, got); continue; }
    conn->filled += got;
    conn->head[conn->filled] = 0;
    char *end = strstr(conn->head, "\r\n\r\n");
    if (end) read_head(conn, end - conn->head + 4);
    else if (conn->filled == HEAD) fail(conn, EMSGSIZE);
  }
}

/* An idle connection that its server closed must not be used again. */
static void drop_idle(struct conn *conn) {
  struct conn **place = &idle;
  while (*place && *place != conn) place = &(*place)->idle;
  if (*place) *place = conn->idle;
  hang_up(conn);
}

static void handle(struct conn *conn, uint32_t events) {
  if (conn->fd < 0) return;
  if (!conn->is_busy) { drop_idle(conn); return; }
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(conn);
  if (conn->is_busy && (events & EPOLLOUT)) send_request(conn);
}

static void cut_late(void) {
  double at = now();
  for (long i = 0; i < all_count; i++)
    if (all[i]->is_busy && at - all[i]->began > timeout) fail(all[i], ETIMEDOUT);
}

static int by_size(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void tell(double seconds) {
  struct rusage used;
  const char *comma = "";
  getrusage(RUSAGE_SELF, &used);
  printf("{\"seconds\":%.4f,\"bytes\":%lld,\"own_cpu_s\":%.3f,\"statuses\":{", seconds, bytes_read,
         used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
  for (int status = 0; status < STATUSES; status++) {
    struct times *times = &seen[status];
    if (!times->count) continue;
    qsort(times->ms, times->count, sizeof *times->ms, by_size);
    printf("%s\"%d\":{\"count\":%ld,\"retry_after\":%ld,\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"max\":%.2f}", comma, status,
           times->count, times->retry_after, times->ms[times->count / 2], times->ms[times->count * 9 / 10],
           times->ms[times->count * 99 / 100], times->ms[times->count - 1]);
    comma = ",";
  }
  printf("},\"errors\":{");
  comma = "";
  for (int error = 0; error < 200; error++)
    if (broken_by_error[error]) printf("%s\"%s\":%ld", comma, error ? strerrorname_np(error) : "EOF", broken_by_error[error]), comma = ",";
  printf("}}\n");
}

static void read_files(const char *body_path, const char *head_path) {
  struct stat about;
  int fd = open(body_path, O_RDONLY);
  if (fd < 0 || fstat(fd, &about) < 0) die(body_path);
  body_length = about.st_size;
  body = mmap(NULL, body_length, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (body == MAP_FAILED) die("mmap");
  close(fd);
  if ((fd = open(head_path, O_RDONLY)) < 0) die(head_path);
  ssize_t got = read(fd, head_text, HEAD - FRONT);
  if (got < 0) die(head_path);
  head_text[got] = 0;
  close(fd);
}

/* Begin what is due; answers the milliseconds until the next one is, or -1. */
static int begin_due(void) {
  if (over <= 0) {
    while (started < count && started - ended < at_once) begin(now());
    return -1;
  }
  while (started < count) {
    double due = began_at + started * over / count, wait = due - now();
    if (wait > 0) return (int)(wait * 1000) + 1;
    begin(due);
  }
  return -1;
}

int main(int words, char **word) {
  if (words != 9) { fprintf(stderr, "load PORT BODY HEADERS COUNT AT_ONCE OVER_S FRESH TIMEOUT_S\n"); return 2; }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  port = atoi(word[1]);
  read_files(word[2], word[3]);
  count = atol(word[4]), at_once = atol(word[5]), over = atof(word[6]), fresh = atoi(word[7]), timeout = atof(word[8]);
  poller = epoll_create1(0);
  began_at = now();
  double looked = began_at;
  struct epoll_event events[EVENTS];
  while (ended < count) {
    int wait = begin_due();
    int ready = epoll_wait(poller, events, EVENTS, wait < 0 || wait > 200 ? 200 : wait);
    for (int i = 0; i < ready; i++) handle(events[i].data.ptr, events[i].events);
    if (now() - looked > 0.2) { cut_late(); looked = now(); }
  }
  tell(now() - began_at);
}

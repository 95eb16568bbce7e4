/* Designs as text, and back. */
#include "shared/design/design.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/str.h"
#include "shared/design/pieces.h"

#define MAX_TOKEN 96 /* characters of a piece */
#define MAX_KERNEL 31
#define MAX_STRIDE 32
#define MAX_EXPAND 64

/* ---- reading ---- */

static int parse_number(const char *what, const char *text, int64_t most, int64_t *ret,
                        struct err *err)
{
    return str_parse_i64(text, 1, most, ret, NULL) == 0
               ? 0
               : err_set(err, ERR_INVALID_ARGUMENT, "%s '%s': 1 to %lld are possible", what, text,
                         (long long)most);
}

static int parse_small(const char *what, const char *text, int64_t most, int *ret, struct err *err)
{
    int64_t value = 0;
    int rc = parse_number(what, text, most, &value, err);
    *ret = (int)value;
    return rc;
}

/* Which option this is; 0: none. */
static unsigned option_of(const char *text)
{
    const bool number = text[0] && text[1] >= '0' && text[1] <= '9';
    if (text[0] >= '0' && text[0] <= '9')
        return PIECE_WIDTH;
    if (strcmp(text, "pool") == 0)
        return PIECE_POOL;
    if (strcmp(text, "se") == 0)
        return PIECE_ATTENTION;
    return !number          ? 0
           : text[0] == 's' ? PIECE_STRIDE
           : text[0] == 'k' ? PIECE_KERNEL
           : text[0] == 'e' ? PIECE_EXPAND
                            : 0;
}

static int parse_option(struct piece *piece, const char *text, unsigned *seen, struct err *err)
{
    const unsigned option = option_of(text);
    if (!(option & piece->type->options))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' has no option '%s'", piece->type->name,
                       text);
    if (option & *seen)
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' says again what was said", text);
    *seen |= option;
    switch (option) {
    case PIECE_WIDTH:
        return parse_number("width", text, DESIGN_MAX_WIDTH, &piece->width, err);
    case PIECE_STRIDE:
        return parse_small("stride", text + 1, MAX_STRIDE, &piece->stride, err);
    case PIECE_KERNEL:
        return parse_small("kernel", text + 1, MAX_KERNEL, &piece->kernel, err);
    case PIECE_EXPAND:
        return parse_small("expand", text + 1, MAX_EXPAND, &piece->expand, err);
    case PIECE_POOL:
        piece->pool = true;
        return 0;
    default:
        piece->attention = true;
        return 0;
    }
}

/* One way to say each thing. */
static int settle(struct piece *piece, bool strided, struct err *err)
{
    if (piece->kernel == piece->type->usual_kernel)
        piece->kernel = 0;
    if (piece->expand == piece->type->usual_expand)
        piece->expand = 0;
    if (!piece->pool || piece->type->head)
        return 0;
    if (strided && piece->stride == 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "a pool needs a stride above 1");
    if (!strided)
        piece->stride = 2;
    return 0;
}

/* Changes the text: "conv:32:s2". */
static int parse_piece(char *text, struct piece *ret, struct err *err)
{
    const char *name = strsep(&text, ":");
    struct piece piece = {.type = piece_type_find(name), .stride = 1};
    unsigned seen = 0;
    if (!piece.type)
        return err_set(err, ERR_INVALID_ARGUMENT, "no type of piece is called '%s'", name);
    while (text) {
        int rc = parse_option(&piece, strsep(&text, ":"), &seen, err);
        if (rc < 0)
            return rc;
    }
    int rc = settle(&piece, seen & PIECE_STRIDE, err);
    if (rc == 0)
        *ret = piece;
    return rc;
}

/* The piece as it is repeated. */
static struct piece without_stride(struct piece piece)
{
    piece.stride = 1;
    piece.pool = piece.pool && piece.type->head;
    return piece;
}

/* Changes the text: "conv:32:s2*3". Adds to the n pieces that are there. */
static int parse_token(char *text, struct piece *pieces, int *n, struct err *err)
{
    struct piece piece;
    char *rest = strchr(text, '*');
    int64_t times = 1;
    if (rest)
        *rest++ = '\0';
    if (*n > 0 && pieces[*n - 1].type->head)
        return err_set(err, ERR_INVALID_ARGUMENT, "nothing can follow a head");
    int rc = rest ? parse_number("times", rest, DESIGN_MAX_PIECES, &times, err) : 0;
    if (rc == 0)
        rc = parse_piece(text, &piece, err);
    if (rc < 0)
        return rc;
    if (piece.type->head && times > 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "nothing can follow a head");
    if (times > DESIGN_MAX_PIECES - *n)
        return err_set(err, ERR_INVALID_ARGUMENT, "more than %d pieces", DESIGN_MAX_PIECES);
    for (int64_t i = 0; i < times; i++)
        pieces[(*n)++] = i == 0 ? piece : without_stride(piece);
    return 0;
}

int design_parse(const char *text, struct arena *arena, struct design *ret, struct err *err)
{
    static const char blanks[] = " \t\r\n";
    struct piece pieces[DESIGN_MAX_PIECES];
    int n = 0, words = 0;
    for (text += strspn(text, blanks); *text; text += strspn(text, blanks)) {
        char token[MAX_TOKEN + 1], shown[MAX_TOKEN + 1];
        const size_t length = strcspn(text, blanks);
        words++;
        if (length > MAX_TOKEN)
            return err_set(err, ERR_INVALID_ARGUMENT, "word %d '%.20s...' is too long", words,
                           text);
        memcpy(token, text, length);
        token[length] = '\0';
        str_copy(shown, sizeof(shown), token);
        int rc = parse_token(token, pieces, &n, err);
        if (rc < 0)
            return err_wrap(err, "word %d '%s'", words, shown);
        text += length;
    }
    if (n == 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "a design without pieces");
    struct piece *kept = arena_memdup(arena, pieces, (size_t)n * sizeof(*pieces));
    if (!kept)
        return err_oom(err, "a design");
    *ret = (struct design){.n = n, .pieces = kept};
    return 0;
}

/* ---- writing ---- */

static bool same(const struct piece *a, const struct piece *b)
{
    return a->type == b->type && a->width == b->width && a->stride == b->stride &&
           a->kernel == b->kernel && a->expand == b->expand && a->pool == b->pool &&
           a->attention == b->attention;
}

static void write_piece(struct strbuf *text, const struct piece *piece)
{
    const int unsaid = piece->pool ? 2 : 1;
    strbuf_add(text, piece->type->name);
    if (piece->width)
        strbuf_printf(text, ":%lld", (long long)piece->width);
    if (piece->stride != unsaid && !piece->type->head)
        strbuf_printf(text, ":s%d", piece->stride);
    if (piece->kernel)
        strbuf_printf(text, ":k%d", piece->kernel);
    if (piece->expand)
        strbuf_printf(text, ":e%d", piece->expand);
    if (piece->pool)
        strbuf_add(text, ":pool");
    if (piece->attention)
        strbuf_add(text, ":se");
}

char *design_text(const struct design *design, int first, int n)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    strbuf_add(&text, "");
    for (int i = first, times; i < first + n; i += times) {
        const struct piece *piece = &design->pieces[i], more = without_stride(*piece);
        for (times = 1; i + times < first + n && same(&design->pieces[i + times], &more);)
            times++;
        strbuf_add(&text, i > first ? " " : "");
        write_piece(&text, piece);
        if (times > 1)
            strbuf_printf(&text, "*%d", times);
    }
    return text.failed ? NULL : strbuf_take(&text);
}

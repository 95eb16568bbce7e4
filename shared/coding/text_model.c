/*
 * Bytes by what went before: contexts of several lengths, the place in the file, the same byte of
 * the last item at this place, and the longest repetition.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/coding/models.h"

#define CONTEXTS 8
#define OPINIONS (CONTEXTS + 1) /* and the repetition */
#define LIMIT 60
#define LENGTHS 16 /* of repetitions, as far as they differ */
#define LONGEST 65535
#define RECENT_BITS 18

struct text_model {
    struct chance *slots;
    uint32_t mask;
    uint8_t *history; /* [capacity] */
    size_t n, capacity;
    uint32_t *recent; /* [1 << RECENT_BITS]: where five bytes of this hash ended last; 0: nowhere */
    size_t match, length;
    uint32_t item[WIRE_PLACES]; /* where the last item of a place began */
    uint32_t above;  /* the byte of the item before that stands where the next one will */
    uint32_t output; /* where the last output's name began */
    struct chance repeats[LENGTHS][2];
    struct mixer mixer;
};

void text_model_freep(struct text_model **m)
{
    if (!*m)
        return;
    mixer_release(&(*m)->mixer);
    free((*m)->slots);
    free((*m)->history);
    free((*m)->recent);
    free(*m);
}

int text_model_new(uint64_t bytes, struct text_model **ret, struct err *err)
{
    _cleanup_(text_model_freep) struct text_model *m = mem_calloc(1, sizeof(*m));
    if (!m)
        return err_oom(err, "coding");
    uint32_t slots = 1 << 16;
    while (slots < 1 << 22 && slots < 64 * bytes)
        slots *= 2;
    m->mask = slots - 1;
    m->slots = mem_calloc(slots, sizeof(*m->slots));
    m->recent = mem_calloc((size_t)1 << RECENT_BITS, sizeof(*m->recent));
    if (!m->slots || !m->recent)
        return err_oom(err, "coding");
    int rc = mixer_init(&m->mixer, OPINIONS, LENGTHS * 6, 14, 1 << 14, err);
    if (rc == 0)
        *ret = TAKE_PTR(m);
    return rc;
}

/* ---- history ---- */

static uint32_t back(const struct text_model *m, size_t i)
{
    return i <= m->n ? m->history[m->n - i] : 0;
}

static uint32_t mix_hash(uint32_t hash, uint32_t x)
{
    hash = (hash ^ x) * 0x9E3779B1u;
    return hash ^ hash >> 15;
}

static void find_match(struct text_model *m, const struct wire *w)
{
    uint32_t hash = 0;
    for (size_t i = 1; i <= 5; i++)
        hash = mix_hash(hash, back(m, i));
    uint32_t *slot = &m->recent[hash >> (32 - RECENT_BITS)];
    if (m->length > 0 && m->history[m->match] == m->history[m->n - 1]) {
        m->match++;
        m->length += m->length < LONGEST;
    } else {
        m->length = 0;
    }
    if (wire_at_input(w) && m->output) {
        m->match = m->output;
        m->length = 1;
    }
    if (m->length == 0 && *slot) {
        m->match = *slot;
        while (m->length < 32 && m->length < m->match &&
               m->history[m->match - 1 - m->length] == m->history[m->n - 1 - m->length])
            m->length++;
    }
    *slot = (uint32_t)m->n;
}

static int keep(struct text_model *m, uint8_t byte)
{
    if (m->n == m->capacity) {
        const size_t capacity = m->capacity ? 2 * m->capacity : 4096;
        uint8_t *more = m->n < UINT32_MAX / 2 ? mem_realloc(m->history, capacity, 1) : NULL;
        if (!more)
            return -1;
        m->history = more;
        m->capacity = capacity;
    }
    m->history[m->n++] = byte;
    return 0;
}

/* ---- a byte ---- */

static size_t length_class(const struct text_model *m)
{
    size_t class = 0;
    for (size_t n = m->length; n > 0 && class < LENGTHS - 1; class ++)
        n = class < 8 ? n - 1 : n / 2;
    return class;
}

static void hash_contexts(const struct text_model *m, const struct wire *w, uint32_t *hashes)
{
    const uint32_t place = wire_place(w);
    const uint32_t at = w->part_at < 15 ? (uint32_t)w->part_at : 15;
    const uint32_t expected = m->length > 0 ? m->history[m->match] + 1u : 0;
    uint32_t chain = mix_hash(1, place);
    for (size_t order = 0; order < 5; order++) {
        hashes[order] = mix_hash(chain, (uint32_t)order);
        chain = mix_hash(chain, back(m, order + 1));
    }
    hashes[5] = mix_hash(mix_hash(chain, back(m, 6)), 5);
    hashes[6] = mix_hash(mix_hash(mix_hash(6, place), m->above), back(m, 1));
    hashes[7] = mix_hash(mix_hash(mix_hash(7, place), expected), at);
}

static struct chance *slot_of(const struct text_model *m, uint32_t hash, uint32_t so_far)
{
    const uint32_t h = mix_hash(hash, so_far * 0x2545F491u);
    struct chance *c = &m->slots[h & m->mask];
    const uint8_t key = (uint8_t)(h >> 24);
    if (c->key != key)
        *c = (struct chance){.key = key};
    return c;
}

static int code_byte(struct text_model *m, struct coder *c, const struct wire *w, int byte)
{
    uint32_t hashes[CONTEXTS], so_far = 1;
    struct chance *opinions[OPINIONS];
    const size_t class = length_class(m);
    hash_contexts(m, w, hashes);
    for (int i = 7; i >= 0; i--) {
        const uint32_t expected = m->length > 0 ? m->history[m->match] | 256u : 0;
        struct chance nothing = {0};
        for (int k = 0; k < CONTEXTS; k++)
            opinions[k] = slot_of(m, hashes[k], so_far);
        const bool follows = expected >> (i + 1) == so_far;
        opinions[CONTEXTS] = follows ? &m->repeats[class][expected >> i & 1] : &nothing;
        const int set = (int)(follows ? class : 0) * 6 + (int)w->part;
        const int bit = mixer_bit(&m->mixer, c, opinions, set, LIMIT, byte >> i & 1);
        so_far = so_far << 1 | (uint32_t)bit;
    }
    return (int)(so_far & 255);
}

/* Where the item that we are in, or that begins, has its counterpart. */
static void look_above(struct text_model *m, const struct wire *w)
{
    uint32_t *item = &m->item[wire_place(w) % WIRE_PLACES];
    if (w->part_at == 0) {
        m->above = *item && *item < m->n ? m->history[*item] + 1u : 0;
        *item = (uint32_t)m->n;
    } else {
        m->above = 0;
    }
    if (wire_at_output(w))
        m->output = (uint32_t)m->n;
}

int text_byte(struct text_model *m, struct coder *c, const struct wire *w, int byte)
{
    if (m->n > 0)
        find_match(m, w);
    look_above(m, w);
    byte = code_byte(m, c, w, byte);
    return keep(m, (uint8_t)byte) < 0 ? -1 : byte;
}

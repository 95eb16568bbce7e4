/* Drawing: shapes are tests "is this point inside" in [-1,1] x [-1,1], painted with SUB x SUB
 * samples a pixel. No function of libm is used, for their last digits differ between systems. */
#include <math.h>
#include <stdbool.h>

#include "services/cli/demo.h"
#include "shared/base/rng.h"

#define SIZE DEMO_SIZE
#define SUB 3 /* samples a pixel and axis */

enum shape { ARROW, CIRCLE, CROSS, HEART, MOON, RING, SQUARE, STAR, STRIPES, TRIANGLE, BAR };

static const char *const names[DEMO_CLASSES] = {"arrow", "circle", "cross", "heart",   "moon",
                                                "ring",  "square", "star",  "stripes", "triangle"};

const char *demo_class_name(int label)
{
    return label >= 0 && label < DEMO_CLASSES ? names[label] : "?";
}

struct point {
    double x, y;
};

/* Five points: radii 0.95 and 0.4 by turns, from the top, every 36 degrees. */
static const struct point star[] = {
    {0, -0.95},           {0.23511, -0.32361}, {0.90350, -0.29357},
    {0.38042, 0.12361},   {0.55840, 0.76857},  {0, 0.4},
    {-0.55840, 0.76857},  {-0.38042, 0.12361}, {-0.90350, -0.29357},
    {-0.23511, -0.32361},
};
static const struct point triangle[] = {{0, -0.92}, {0.87, 0.58}, {-0.87, 0.58}};
static const struct point arrow[] = {{0.95, 0},     {0.15, 0.72},  {0.15, 0.26}, {-0.9, 0.26},
                                     {-0.9, -0.26}, {0.15, -0.26}, {0.15, -0.72}};

/* Crossing number. */
static bool in_polygon(const struct point *v, int n, double x, double y)
{
    bool inside = false;
    for (int i = 0, j = n - 1; i < n; j = i++)
        if ((v[i].y > y) != (v[j].y > y) &&
            x < (v[j].x - v[i].x) * (y - v[i].y) / (v[j].y - v[i].y) + v[i].x)
            inside = !inside;
    return inside;
}

static bool in_heart(double x, double y)
{
    double a = x * 1.25, b = -(y - 0.05) * 1.25;
    double r = a * a + b * b - 1;
    return r * r * r - a * a * b * b * b < 0;
}

static bool in_moon(double x, double y)
{
    double dx = x - 0.42;
    return x * x + y * y < 0.81 && dx * dx + y * y > 0.5;
}

static bool in_stripes(double x, double y)
{
    double ax = fabs(x), ay = fabs(y);
    return ax < 0.85 && (ay < 0.16 || (ay > 0.5 && ay < 0.85));
}

static bool inside(enum shape shape, double x, double y)
{
    double r2 = x * x + y * y, ax = fabs(x), ay = fabs(y);
    switch (shape) {
    case ARROW:
        return in_polygon(arrow, 7, x, y);
    case CIRCLE:
        return r2 < 0.72;
    case CROSS:
        return (ax < 0.27 && ay < 0.9) || (ay < 0.27 && ax < 0.9);
    case HEART:
        return in_heart(x, y);
    case MOON:
        return in_moon(x, y);
    case RING:
        return r2 < 0.81 && r2 > 0.25;
    case SQUARE:
        return ax < 0.7 && ay < 0.7;
    case STAR:
        return in_polygon(star, 10, x, y);
    case STRIPES:
        return in_stripes(x, y);
    case TRIANGLE:
        return in_polygon(triangle, 3, x, y);
    case BAR:
        return ax < 1 && ay < 0.22;
    }
    return false;
}

/* ---- colours ---- */

struct colour {
    double c[3];
};

static double between(struct rng *rng, double low, double high)
{
    return low + (high - low) * rng_f64(rng);
}

static struct colour any_colour(struct rng *rng)
{
    struct colour out;
    for (int i = 0; i < 3; i++)
        out.c[i] = between(rng, 10, 245);
    return out;
}

static double distance2(struct colour a, struct colour b)
{
    double sum = 0;
    for (int i = 0; i < 3; i++)
        sum += (a.c[i] - b.c[i]) * (a.c[i] - b.c[i]);
    return sum;
}

static struct colour mix(struct colour a, struct colour b, double t)
{
    struct colour out;
    for (int i = 0; i < 3; i++)
        out.c[i] = a.c[i] + (b.c[i] - a.c[i]) * t;
    return out;
}

/* Things have colours that they tend to, as in life; without them nothing in a picture would tell
 * RGB from BGR. */
static const struct colour usual[DEMO_CLASSES] = {
    {{240, 130, 40}}, {{250, 100, 30}}, {{170, 60, 190}}, {{220, 40, 50}},  {{235, 225, 150}},
    {{60, 200, 220}}, {{50, 80, 210}},  {{240, 210, 60}}, {{70, 140, 230}}, {{70, 170, 60}},
};

/* Of a thing of this class: one that can be told from two others, sometimes only just. */
static struct colour thing_colour(struct rng *rng, int label, struct colour a, struct colour b)
{
    double wanted = between(rng, 60, 150), tendency = between(rng, 0.3, 0.9);
    struct colour found = mix(any_colour(rng), usual[label], tendency);
    for (int i = 0; i < 40; i++) {
        double to_a = distance2(found, a), to_b = distance2(found, b);
        if ((to_a < to_b ? to_a : to_b) > wanted * wanted)
            break;
        tendency *= 0.9; /* the usual colour may be that of the background */
        found = mix(any_colour(rng), usual[label], tendency);
    }
    return found;
}

/* ---- painting ---- */

struct canvas {
    struct colour pixel[SIZE][SIZE];
};

/* Where a thing is: picture point -> shape point is [a b; c d] (p - centre). */
struct pose {
    double x, y, radius; /* pixels */
    double a, b, c, d;
};

/* A random direction without sine and cosine: a point of the disc, normalised. */
static struct point direction(struct rng *rng)
{
    while (true) {
        double x = between(rng, -1, 1), y = between(rng, -1, 1), r2 = x * x + y * y;
        if (r2 > 0.01 && r2 < 1)
            return (struct point){x / sqrt(r2), y / sqrt(r2)};
    }
}

/* Rotated by any angle, a little sheared and squeezed. */
static struct pose any_pose(struct rng *rng, double x, double y, double radius, double bend)
{
    struct point u = direction(rng);
    double shear = between(rng, -bend, bend), squeeze = 1 + between(rng, -bend, bend);
    double ca = u.x / radius, sa = u.y / radius;
    return (struct pose){.x = x,
                         .y = y,
                         .radius = radius * (1.5 + bend),
                         .a = ca,
                         .b = sa,
                         .c = (-sa + shear * ca) * squeeze,
                         .d = (ca + shear * sa) * squeeze};
}

static double coverage(enum shape shape, const struct pose *p, int px, int py)
{
    int hits = 0;
    for (int i = 0; i < SUB * SUB; i++) {
        double dx = px + (i % SUB + 0.5) / SUB - p->x, dy = py + (i / SUB + 0.5) / SUB - p->y;
        hits += inside(shape, p->a * dx + p->b * dy, p->c * dx + p->d * dy);
    }
    return (double)hits / (SUB * SUB);
}

static int clamp(double v)
{
    return v < 0 ? 0 : v > SIZE - 1 ? SIZE - 1 : (int)v;
}

/* Painted in a gradient from one colour to the other. */
static void paint(struct canvas *canvas, enum shape shape, const struct pose *p, struct colour from,
                  struct colour to, double opacity)
{
    for (int y = clamp(p->y - p->radius); y <= clamp(p->y + p->radius); y++) {
        for (int x = clamp(p->x - p->radius); x <= clamp(p->x + p->radius); x++) {
            double share = coverage(shape, p, x, y) * opacity;
            double t = 0.5 + 0.5 * (p->a * (x - p->x) + p->b * (y - p->y));
            if (share > 0)
                canvas->pixel[y][x] = mix(canvas->pixel[y][x], mix(from, to, t), share);
        }
    }
}

/* ---- pictures ---- */

/* Two colours over the picture, and clouds: random values at 5x5 points, interpolated. */
static void paint_background(struct canvas *canvas, struct rng *rng, struct colour a,
                             struct colour b)
{
    double cloud[6][6], strength = between(rng, 0.1, 0.7);
    struct point u = direction(rng);
    for (int i = 0; i < 36; i++)
        cloud[i / 6][i % 6] = between(rng, -strength, strength);
    for (int y = 0; y < SIZE; y++) {
        for (int x = 0; x < SIZE; x++) {
            double gx = x * 5.0 / SIZE, gy = y * 5.0 / SIZE;
            int ix = (int)gx, iy = (int)gy;
            double fx = gx - ix, fy = gy - iy;
            double top = cloud[iy][ix] * (1 - fx) + cloud[iy][ix + 1] * fx;
            double low = cloud[iy + 1][ix] * (1 - fx) + cloud[iy + 1][ix + 1] * fx;
            double t = 0.5 + ((x - SIZE / 2) * u.x + (y - SIZE / 2) * u.y) / SIZE;
            t += top * (1 - fy) + low * fy;
            canvas->pixel[y][x] = mix(a, b, t < 0 ? 0 : t > 1 ? 1 : t);
        }
    }
}

/* Small things of any class. C leaves open which argument of a call is computed first, so every
 * random number is drawn in a statement of its own. */
static void paint_clutter(struct canvas *canvas, struct rng *rng)
{
    int n = 2 + (int)rng_below(rng, 5);
    for (int i = 0; i < n; i++) {
        double radius = between(rng, 1.5, 3.5);
        double y = between(rng, 0, SIZE);
        double x = between(rng, 0, SIZE);
        struct pose pose = any_pose(rng, x, y, radius, 0.3);
        struct colour colour = any_colour(rng);
        double opacity = between(rng, 0.3, 0.9);
        enum shape shape = (enum shape)rng_below(rng, BAR + 1);
        paint(canvas, shape, &pose, colour, colour, opacity);
    }
}

/* Bars and discs that hide a part of the thing. */
static void paint_occluders(struct canvas *canvas, struct rng *rng, const struct pose *thing)
{
    int n = (int)rng_below(rng, 5) / 2; /* two are rarer than none or one */
    for (int i = 0; i < n; i++) {
        struct point u = direction(rng);
        double away = thing->radius * between(rng, 0.15, 0.6);
        bool bar = rng_below(rng, 2) == 1;
        struct pose pose = any_pose(rng, thing->x + u.x * away, thing->y + u.y * away,
                                    bar ? between(rng, 5, 9) : between(rng, 2, 4), 0.2);
        struct colour colour = any_colour(rng);
        paint(canvas, bar ? BAR : CIRCLE, &pose, colour, any_colour(rng), 1);
    }
}

/* Near enough to normal: the sum of four uniform numbers. */
static double noise(struct rng *rng)
{
    uint64_t bits = rng_u64(rng);
    double sum = 0;
    for (int i = 0; i < 4; i++, bits >>= 16)
        sum += (double)(bits & 0xffff) / 65536 - 0.5;
    return sum * 1.7320508075688772;
}

void demo_draw(uint64_t seed, uint64_t index, int label, uint8_t rgb[SIZE * SIZE * 3])
{
    struct rng rng;
    struct canvas canvas;
    rng_seed2(&rng, seed, index);
    struct colour back = any_colour(&rng), back2 = mix(back, any_colour(&rng), 0.6);
    paint_background(&canvas, &rng, back, back2);
    paint_clutter(&canvas, &rng);
    double radius = between(&rng, 7.5, 14);
    double room = (SIZE - 1.3 * radius) / 2 * 0.6;
    double y = SIZE / 2 + between(&rng, -room, room);
    double x = SIZE / 2 + between(&rng, -room, room);
    struct pose pose = any_pose(&rng, x, y, radius, 0.25);
    struct colour front = thing_colour(&rng, label, back, back2);
    double opacity = between(&rng, 0.75, 1);
    double change = between(&rng, 0, 0.4);
    struct colour front2 = mix(front, any_colour(&rng), change);
    paint(&canvas, (enum shape)label, &pose, front, front2, opacity);
    paint_occluders(&canvas, &rng, &pose);
    double sigma = between(&rng, 2, 15);
    for (int i = 0; i < SIZE * SIZE * 3; i++) {
        double v = canvas.pixel[i / 3 / SIZE][i / 3 % SIZE].c[i % 3] + sigma * noise(&rng) + 0.5;
        rgb[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

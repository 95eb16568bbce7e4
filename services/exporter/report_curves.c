/* Learning curves: of each network that was trained, by epoch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/exporter/report_parts.h"
#include "shared/train/checkpoint.h"

#define MOST 12 /* drawn; result.json has them all */
#define WIDTH 560.0
#define HEIGHT 240.0
#define LEFT 50.0
#define RIGHT 50.0
#define TOP 12.0
#define BOTTOM 34.0

typedef Hone__V1__TrainResult__Epoch row;
typedef double column(const row *r);

static double loss_of(const row *r)
{
    return r->loss;
}

static double accuracy_of(const row *r)
{
    return r->accuracy;
}

static double search_of(const row *r)
{
    return r->search_accuracy;
}

/* ---- drawing ---- */

static double x_of(const Hone__V1__TrainResult *t, double epoch)
{
    const double last = t->epochs > 1 ? t->epochs : 2;
    return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / (last - 1);
}

static double y_of(double value, double most)
{
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most;
}

static double greatest_loss(const Hone__V1__TrainResult *t)
{
    double most = 0;
    for (size_t i = 0; i < t->n_curve; i++)
        if (isfinite(t->curve[i]->loss))
            most = fmax(most, t->curve[i]->loss);
    return most > 0 ? most : 1;
}

static void add_line(const Hone__V1__TrainResult *t, column *of, double most, const char *color,
                     struct strbuf *out)
{
    strbuf_printf(out, "<polyline fill=none stroke-width=2 style='stroke:var(--%s)' points='",
                  color);
    for (size_t i = 0; i < t->n_curve; i++)
        if (isfinite(of(t->curve[i])))
            strbuf_printf(out, "%.1f,%.1f ", x_of(t, t->curve[i]->epoch),
                          y_of(of(t->curve[i]), most));
    strbuf_add(out, "'></polyline>");
}

static void add_axes(const Hone__V1__TrainResult *t, double most, struct strbuf *out)
{
    for (int i = 0; i <= 4; i++) {
        const double y = y_of(i, 4);
        strbuf_printf(out,
                      "<line class=grid x1=%.1f y1=%.1f x2=%.1f y2=%.1f /><text class=label x=%.1f "
                      "y=%.1f text-anchor=end>%.2g</text><text class=label x=%.1f y=%.1f>%d %%"
                      "</text>",
                      LEFT, y, WIDTH - RIGHT, y, LEFT - 6, y + 4, most * i / 4, WIDTH - RIGHT + 6,
                      y + 4, 25 * i);
    }
    strbuf_printf(out,
                  "<text class=label x=%.1f y=%.1f>epoch 1</text><text class=label x=%.1f y=%.1f "
                  "text-anchor=end>%u</text>",
                  LEFT, HEIGHT - 12, WIDTH - RIGHT, HEIGHT - 12, t->epochs > 1 ? t->epochs : 2);
}

static void add_curve(const Hone__V1__TrainResult *t, struct strbuf *out)
{
    const double most = greatest_loss(t);
    const char *name = t->network ? t->network->name : "";
    char took[32];
    strbuf_add(out, "<div><h3>");
    report_escaped(out, name);
    strbuf_printf(out,
                  "</h3><p class=soft>%zu of %u epochs, %s, %.0f images/s</p><svg viewBox='0 0 "
                  "%.0f %.0f' width=%.0f role=img aria-label='learning curve'>",
                  t->n_curve, t->epochs, str_seconds(t->seconds, took), t->images_per_second, WIDTH,
                  HEIGHT, WIDTH);
    add_axes(t, most, out);
    add_line(t, loss_of, most, "fp32", out);
    add_line(t, accuracy_of, 1, "bf16", out);
    add_line(t, search_of, 1, "good", out);
    strbuf_add(out, "</svg></div>");
}

void report_curves_html(const struct report *r, struct strbuf *out)
{
    if (r->n_trained == 0)
        return;
    strbuf_add(out,
               "<section><h2>Learning curves</h2><p><b style='color:var(--fp32)'>loss</b> (left), "
               "<b style='color:var(--bf16)'>accuracy while training</b> (augmented samples) and "
               "<b style='color:var(--good)'>on the search part</b> (right)</p><div class=curves>");
    for (size_t i = 0; i < r->n_trained && i < MOST; i++)
        add_curve(r->trained[i], out);
    strbuf_add(out, "</div>");
    if (r->n_trained > MOST)
        strbuf_printf(out, "<p class=soft>%zu more are in result.json.</p>", r->n_trained - MOST);
    strbuf_add(out, "</section>");
}

/* ---- result.json ---- */

/* {"epochs":[...]}, as `hone train --curve` writes it; NULL when memory is out. */
static char *curve_json(const Hone__V1__TrainResult *t)
{
    _cleanup_(freep) struct train_epoch *curve = mem_calloc(t->n_curve + 1, sizeof(*curve));
    if (!curve)
        return NULL;
    for (size_t i = 0; i < t->n_curve; i++) {
        const row *r = t->curve[i];
        curve[i] = (struct train_epoch){.epoch = (int64_t)r->epoch - 1,
                                        .loss = r->loss,
                                        .feature_loss = r->feature_loss,
                                        .accuracy = r->accuracy,
                                        .search_accuracy = r->search_accuracy,
                                        .rate = r->rate,
                                        .seconds = r->seconds,
                                        .images_per_second = r->images_per_second};
    }
    return train_curve_json(curve, (int64_t)t->n_curve);
}

void report_curves_json(const struct report *r, yyjson_mut_doc *d, yyjson_mut_val *root)
{
    yyjson_mut_val *curves = r->n_trained ? yyjson_mut_obj_add_arr(d, root, "curves") : NULL;
    for (size_t i = 0; i < r->n_trained; i++) {
        const Hone__V1__TrainResult *t = r->trained[i];
        _cleanup_(freep) char *text = curve_json(t);
        yyjson_doc *curve = text ? yyjson_read(text, strlen(text), 0) : NULL;
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(d, curves);
        yyjson_mut_obj_add_strcpy(d, o, "name", t->network ? t->network->name : "");
        report_number(d, o, "seconds", t->seconds, 1);
        if (curve)
            yyjson_mut_obj_add_val(
                d, o, "epochs",
                yyjson_val_mut_copy(d, yyjson_obj_get(yyjson_doc_get_root(curve), "epochs")));
        yyjson_doc_free(curve);
    }
}

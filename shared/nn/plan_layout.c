/* Memory layouts of activations, and their oneDNN descriptors. */
#include "shared/nn/plan_priv.h"

const char *layout_name(enum layout layout)
{
    static const char *const names[] = {"plain", "last", "c16", "c8", "c4"};
    return names[layout];
}

int64_t layout_block(enum layout layout)
{
    return layout == LAYOUT_C16 ? 16 : layout == LAYOUT_C8 ? 8 : layout == LAYOUT_C4 ? 4 : 1;
}

bool layout_possible(enum layout layout, const struct shape *shape)
{
    return layout == LAYOUT_PLAIN || (shape->rank >= 3 && shape->rank <= 2 + MAX_SPATIAL);
}

static int64_t spatial_elements(const struct shape *shape)
{
    int64_t n = 1;
    for (int d = 2; d < shape->rank; d++)
        n *= shape->dim[d];
    return n;
}

enum layout layout_canonical(enum layout layout, const struct shape *shape)
{
    if (layout == LAYOUT_PLAIN || shape->rank < 3)
        return LAYOUT_PLAIN;
    int64_t pixels = spatial_elements(shape), channels = shape->dim[1];
    if (layout == LAYOUT_LAST)
        return pixels == 1 || channels == 1 ? LAYOUT_PLAIN : layout;
    /* One pixel: the blocks of one sample follow each other as in PLAIN. */
    return pixels == 1 && channels % layout_block(layout) == 0 ? LAYOUT_PLAIN : layout;
}

int64_t layout_plane(enum layout layout, const struct shape *shape)
{
    int64_t pixels = spatial_elements(shape);
    return layout == LAYOUT_C4 && pixels % 512 == 0 ? pixels + 16 : pixels;
}

int64_t layout_elements(enum layout layout, const struct shape *shape)
{
    int64_t block = layout_block(layout);
    if (block == 1)
        return shape_elements(shape);
    return shape->dim[0] * ((shape->dim[1] + block - 1) / block) * block *
           layout_plane(layout, shape);
}

dnnl_data_type_t dnnl_type(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F32:
        return dnnl_f32;
    case DTYPE_BF16:
        return dnnl_bf16;
    case DTYPE_U8:
        return dnnl_u8;
    case DTYPE_S8:
        return dnnl_s8;
    case DTYPE_S32:
        return dnnl_s32;
    default:
        return dnnl_data_type_undef;
    }
}

static dnnl_format_tag_t plain_tag(int rank)
{
    static const dnnl_format_tag_t tags[] = {dnnl_a,      dnnl_a,       dnnl_ab,
                                             dnnl_abc,    dnnl_abcd,    dnnl_abcde,
                                             dnnl_abcdef, dnnl_abcdefg, dnnl_abcdefgh};
    return tags[rank];
}

dnnl_memory_desc_t layout_md(enum layout layout, const struct shape *shape, enum dtype dtype)
{
    static const dnnl_format_tag_t tags[LAYOUT_COUNT][MAX_SPATIAL] = {
        [LAYOUT_LAST] = {dnnl_nwc, dnnl_nhwc, dnnl_ndhwc},
        [LAYOUT_C16] = {dnnl_nCw16c, dnnl_nChw16c, dnnl_nCdhw16c},
        [LAYOUT_C8] = {dnnl_nCw8c, dnnl_nChw8c, dnnl_nCdhw8c},
    };
    dnnl_dims_t dims = {1};
    int rank = shape->rank ? shape->rank : 1; /* oneDNN has no scalars */
    for (int d = 0; d < shape->rank; d++)
        dims[d] = shape->dim[d];
    dnnl_format_tag_t tag =
        layout == LAYOUT_PLAIN ? plain_tag(rank) : tags[layout][shape->rank - 3];
    dnnl_memory_desc_t md = NULL;
    if (layout == LAYOUT_C4)
        return NULL;
    if (dnnl_memory_desc_create_with_tag(&md, rank, dims, dnnl_type(dtype), tag) != dnnl_success)
        return NULL;
    return md;
}

// Bilinear resizing as image libraries do it: a pixel is the mean of those under it, weighted by a triangle that is as
// wide as the step between two pixels of the smaller image. Enlarging, that is plain interpolation between the centres
// of pixels; reducing, nothing is skipped, so nothing flickers. Both directions one after the other: a 12-megapixel
// photograph costs 2 x 18 products a pixel instead of 18 x 18.

// One work item makes one pixel of the rows: rows are still as many as the image has, each as wide as the result.
__kernel void resize_rows(__global const uchar *restrict image, __global float *restrict rows,
                          const int width, const int out_width)
{
    const size_t row = get_global_id(1);
    const float scale = (float)width / (float)out_width;
    const float reach = fmax(scale, 1.0f);
    const float centre = ((float)get_global_id(0) + 0.5f) * scale;
    const int first = max((int)(centre - reach + 0.5f), 0);
    const int last = min((int)(centre + reach + 0.5f), width);
    float red = 0.0f, green = 0.0f, blue = 0.0f, weights = 0.0f;
    for (int x = first; x < last; x++) {
        const float weight = fmax(1.0f - fabs((float)x + 0.5f - centre) / reach, 0.0f);
        const uchar3 rgb = vload3(row * (size_t)width + (size_t)x, image);
        red += weight * (float)rgb.x;
        green += weight * (float)rgb.y;
        blue += weight * (float)rgb.z;
        weights += weight;
    }
    __global float *out = rows + (row * (size_t)out_width + get_global_id(0)) * 3;
    out[0] = red / weights;
    out[1] = green / weights;
    out[2] = blue / weights;
}

// One work item makes one pixel of all three planes.
__kernel void resize_columns(__global const float *restrict rows, __global float *restrict tensor,
                             const int height, const int out_height, const int out_width,
                             const float mean_r, const float mean_g, const float mean_b,
                             const float std_r, const float std_g, const float std_b)
{
    const size_t x = get_global_id(0), y = get_global_id(1), image = get_global_id(2);
    const float scale = (float)height / (float)out_height;
    const float reach = fmax(scale, 1.0f);
    const float centre = ((float)y + 0.5f) * scale;
    const int first = max((int)(centre - reach + 0.5f), 0);
    const int last = min((int)(centre + reach + 0.5f), height);
    float red = 0.0f, green = 0.0f, blue = 0.0f, weights = 0.0f;
    for (int row = first; row < last; row++) {
        const float weight = fmax(1.0f - fabs((float)row + 0.5f - centre) / reach, 0.0f);
        const size_t pixel = (image * (size_t)height + (size_t)row) * (size_t)out_width + x;
        red += weight * rows[pixel * 3];
        green += weight * rows[pixel * 3 + 1];
        blue += weight * rows[pixel * 3 + 2];
        weights += weight;
    }
    const size_t plane = (size_t)out_height * (size_t)out_width;
    __global float *out = tensor + image * 3 * plane + y * (size_t)out_width + x;
    const float full = 255.0f * weights;
    out[0] = (red / full - mean_r) / std_r;
    out[plane] = (green / full - mean_g) / std_g;
    out[2 * plane] = (blue / full - mean_b) / std_b;
}

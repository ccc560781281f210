// What travels to the device and back with every frame. frame.py says the same to NumPy; a test
// compares the two.
#ifndef AIRSIDE_FRAME
#define AIRSIDE_FRAME

// Begins every input block; the points or pixels follow it. All live parameters are here, so that
// a recorded graph serves for all of their values.
struct Frame {
    int points;            // points that follow
    int most;              // candidates that enter suppression
    int max_detections;    // boxes that are put out
    float min_range2;      // m^2, points nearer to the z axis are left out
    float intensity_scale; // brings the intensity to 0..1
    float nms_iou;         // within a group
    float nms_iou_across;  // between groups
    int reserved;
    float thresholds[128];     // lowest value of every label; inf where a label is dropped
    unsigned char groups[128]; // suppression group of every label
    unsigned char padding[352];
};

static_assert(sizeof(Frame) == 1024, "frame.py counts on it");

#endif

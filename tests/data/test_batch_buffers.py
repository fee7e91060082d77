import numpy as np

from keras_flowers.data.batch_buffers import BatchBuffers


def test_arrays_have_the_shape_asked_for_and_are_aligned():
    array = BatchBuffers((3, 5, 3)).array(7)
    assert (array.shape, array.dtype) == ((7, 3, 5, 3), np.uint8)
    assert array.ctypes.data % 64 == 0
    assert array.flags.writeable


def test_memory_is_used_again_only_when_nobody_holds_the_array():
    buffers = BatchBuffers((4, 4, 3))
    first = buffers.array(2)
    first[...] = 1
    second = buffers.array(2)
    second[...] = 2
    assert (first == 1).all()
    place = second.ctypes.data
    part = second.reshape(2, -1)[1:]
    del second
    assert buffers.array(2).ctypes.data != place, "a slice holds it"
    assert (part == 2).all()
    del part
    third = buffers.array(2)
    assert third.ctypes.data == place
    assert (first == 1).all()


def test_a_pipeline_hands_out_batches_that_stay_as_they_are():
    import tensorflow as tf

    buffers = BatchBuffers((2, 2, 3))

    def read(index):
        array = buffers.array(3)
        array[...] = index
        return array

    dataset = tf.data.Dataset.range(40).map(
        lambda index: tf.numpy_function(read, [index], tf.uint8),
        num_parallel_calls=2,
    )
    batches = list(dataset.prefetch(2))
    for index, batch in enumerate(batches):
        assert (batch.numpy() == index).all()
